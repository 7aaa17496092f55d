"""Measurements beside latency on the device: outputs, accuracy, stages, operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.devices import StageTimes, Timer
from benchmark.measure.plan import Cell
from benchmark.schema import Accuracy, Operator, Stage, Stages
from edge.bundle import Artifact, Bundle, Verification
from edge.data import Table
from edge.engines.runner import bundle_task, bundle_tokenizer
from edge.errors import EngineError, MeasurementError
from edge.precision import Precision
from edge.tasks import Outputs
from edge.tokenization import Encoding
from edge.verify import Tally


@dataclass(frozen=True)
class Findings:
    """Results beside latency; None if the device cannot tell or was not asked."""

    check: Verification | None = None
    accuracy: Accuracy | None = None
    stages: Stages | None = None
    operators: tuple[Operator, ...] = ()
    instructions: int | None = None


def collect_findings(cell: Cell, timer: Timer, *, table: Table | None, profile: bool) -> Findings:
    """Verify a model on its device, and measure its accuracy, stages and operators there.

    table: labeled rows for the task's metric. profile: also profile its operators.
    Raises MeasurementError if the model fails or the device is gone.
    """
    bundle, artifact = cell.bundle, cell.artifact
    check = accuracy = None
    if cell.role == "artifact" and bundle is not None and artifact is not None:
        check = _check(cell, bundle, artifact, timer)
        if table is not None:
            accuracy = _accuracy(cell, bundle, artifact, timer, table)
    stages = timer.stages() if cell.text_inputs is not None else None
    return Findings(
        check=check,
        accuracy=accuracy,
        stages=None if stages is None else stages_of(stages),
        operators=(timer.profile() or ()) if profile else (),
        instructions=timer.instructions(),
    )


def stages_of(times: StageTimes) -> Stages | None:
    """Return percentiles in milliseconds; None without a text."""
    if not times.e2e_ns:
        return None
    return Stages(
        tokenize=_stage(times.tokenize_ns),
        infer=_stage(times.infer_ns),
        e2e=_stage(times.e2e_ns),
    )


def _stage(values_ns: Sequence[int]) -> Stage:
    p50, p90 = np.percentile(np.asarray(values_ns) / 1e6, [50, 90])
    return Stage(p50=float(p50), p90=float(p90), n=len(values_ns))


def _check(cell: Cell, bundle: Bundle, artifact: Artifact, timer: Timer) -> Verification | None:
    """Verify the golden texts, each at its own length; None if the device gives no outputs."""
    cases = bundle.golden_cases()
    encodings = [Encoding(case.input_ids, case.token_type_ids) for case in cases]
    outputs = _infer(bundle, artifact, timer, encodings)
    if outputs is None:
        return None
    task, tally = bundle_task(bundle), Tally()
    try:
        for case, encoding, answer in zip(cases, encodings, outputs, strict=True):
            length = artifact.fit_length(len(encoding))
            tally.add(task, encoding, answer, case.outputs, length)
    except EngineError as error:
        return Verification(status="failed", engine=cell.engine, reason=str(error))
    return tally.verification(cell.engine, cell.version, Precision(artifact.precision).gate)


def _accuracy(
    cell: Cell, bundle: Bundle, artifact: Artifact, timer: Timer, table: Table
) -> Accuracy | None:
    tokenizer, max_length = bundle_tokenizer(bundle), bundle.manifest.max_length
    examples = bundle_task(bundle).examples(table, tokenizer, max_length=max_length)
    outputs = _infer(bundle, artifact, timer, examples.encodings)
    if outputs is None:
        return None
    metric, value = next(iter(examples.score(outputs).items()))
    return Accuracy(
        metric=metric, value=value, engine=cell.engine, on_device=True, samples=len(table)
    )


def _infer(
    bundle: Bundle, artifact: Artifact, timer: Timer, encodings: Sequence[Encoding]
) -> Iterator[Outputs] | None:
    tokenizer, task = bundle_tokenizer(bundle), bundle_task(bundle)
    names = [spec.name for spec in artifact.inputs]
    lengths = [artifact.fit_length(len(encoding)) for encoding in encodings]
    feeds = []
    for encoding, length in zip(encodings, lengths, strict=True):
        inputs = tokenizer.pad([encoding], length)
        feeds.append({name: inputs[name] for name in names})
    answers = timer.answers(feeds)
    if answers is None:
        return None

    def trimmed(answers: Iterable[Outputs]) -> Iterator[Outputs]:
        count = 0
        for answer, encoding, length in zip(answers, encodings, lengths, strict=False):
            yield task.trim(answer, 0, min(len(encoding), length))
            count += 1
        if count != len(encodings):
            raise MeasurementError(
                f"{artifact.name}: {count} answers came back to {len(encodings)} texts"
            )

    return trimmed(answers)
