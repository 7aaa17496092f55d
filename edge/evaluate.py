"""Evaluation with the task's metric: of the artifacts of a bundle, and of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from edge.bundle import Artifact, Bundle
from edge.checkpoint import Checkpoint, load_tokenizer
from edge.checkpoint import max_length as longest_input
from edge.config import Config
from edge.console import counted, hush, step
from edge.data import Table
from edge.engines.base import Engine
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer, choose
from edge.reference import Reference
from edge.tasks import Outputs, Task
from edge.tasks.base import Examples
from edge.tasks.summary import say_understood
from edge.tokenization import Encoding, Tokenizer

# Outputs of each encoding in turn, without batch dimension and padding: Runner.infer is one.
Infer = Callable[[Iterable[Encoding]], Iterable[Outputs]]
Job = Callable[[], "Evaluation"]


# The `format` of a checkpoint's evaluation.
CHECKPOINT = "checkpoint"


class Evaluation(Config):
    """The metric of one artifact, or of a checkpoint, over `samples` rows; more is better.

    source: its bundle, or the checkpoint, whose format is CHECKPOINT and target the engine.
    others: further metrics of the same runs, by name.
    """

    source: str = ""
    format: str
    target: str
    precision: str
    engine: str
    metric: str
    value: float
    samples: int
    others: dict[str, float] = {}


def score(
    task: Task, tokenizer: Tokenizer, table: Table, infer: Infer, *, max_length: int
) -> tuple[str, float]:
    """Return name and value of the task's main metric on the outputs of `infer`; more is better.

    max_length: in tokens. Raises DataError when the table does not fit the task.
    """
    examples = task.examples(table, tokenizer, max_length=max_length)
    return next(iter(examples.score(infer(examples.encodings)).items()))


def evaluate_checkpoint(
    checkpoint: Checkpoint, table: Table, *, max_length: int
) -> tuple[str, float]:
    """Return name and value of the task's main metric of a checkpoint run in PyTorch.

    max_length: in tokens. Raises CheckpointError, or DataError when the table does not fit.
    """
    evaluation = checkpoint_job(checkpoint, table, max_length=max_length)()
    return evaluation.metric, evaluation.value


def bundle_examples(bundle: Bundle, table: Table) -> Examples:
    """Return the rows encoded for the bundle's model, and print a line that describes them.

    Raises DataError when the table does not fit the bundle's task.
    """
    task, max_length = bundle_task(bundle), bundle.manifest.max_length
    examples = task.examples(table, bundle_tokenizer(bundle), max_length=max_length)
    say_understood(task, table, examples.encodings, max_length=max_length)
    return examples


def evaluate(
    bundle: Bundle,
    table: Table,
    *,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
    examples: Examples | None = None,
) -> list[Evaluation]:
    """Evaluate every artifact on all rows, each text at its own length, as an app would run it.

    engine: run in this engine only, skipping artifacts of other formats; by default in the first
    available one. examples: the result of `bundle_examples` for `table`, if already computed.
    Raises DataError when the table does not fit the bundle's task.
    """
    jobs = evaluation_jobs(
        bundle,
        table,
        formats=formats,
        precisions=precisions,
        engine=engine,
        threads=threads,
        examples=examples,
    )
    return [job() for job in jobs]


def evaluation_jobs(
    bundle: Bundle,
    table: Table,
    *,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
    examples: Examples | None = None,
) -> list[Job]:
    """Return the evaluations of `evaluate` as separate jobs, so that one failure keeps the others.

    Raises the errors that `evaluate` raises before it runs an artifact.
    """
    encoded = examples or bundle_examples(bundle, table)

    def job(artifact: Artifact, engine_used: Engine) -> Evaluation:
        title = f"evaluate {artifact.name} in {engine_used.name} on {counted(len(table), 'row')}"
        with (
            step(title),
            hush(),
            Runner(bundle, artifact, engine_used, threads=threads) as runner,
        ):
            metrics = encoded.score(runner.infer(encoded.encodings))
        kind = (artifact.format, artifact.target, str(artifact.precision))
        return _evaluation(str(bundle.path), kind, engine_used.name, metrics, len(table))

    chosen = choose(bundle, formats, precisions, engine)
    return [partial(job, artifact, engine_used) for artifact, engine_used in chosen]


def checkpoint_job(checkpoint: Checkpoint, table: Table, *, max_length: int | None = None) -> Job:
    """Return the job that evaluates a checkpoint in PyTorch.

    max_length: in tokens, at most the checkpoint's own limit, which is the default. The job raises
    CheckpointError, or DataError when the table does not fit.
    """

    def job() -> Evaluation:
        with hush():
            reference = Reference(checkpoint)
            limit = longest_input(checkpoint, load_tokenizer(checkpoint))
        longest = min(max_length or limit, limit)
        task, tokenizer = checkpoint.task, reference.tokenizer
        examples = task.examples(table, tokenizer, max_length=longest)
        say_understood(task, table, examples.encodings, max_length=longest)
        with step(f"evaluate {checkpoint.source} on {counted(len(table), 'row')}"), hush():
            metrics = examples.score(reference.infer(examples.encodings))
        kind = (CHECKPOINT, "pytorch", "fp32")
        return _evaluation(checkpoint.source, kind, "pytorch", metrics, len(table))

    return job


def _evaluation(
    source: str,
    kind: tuple[str, str, str],
    engine: str,
    metrics: Mapping[str, float],
    samples: int,
) -> Evaluation:
    """Return an Evaluation from metrics, the main one first. kind: format, target, precision."""
    (metric, value), *others = metrics.items()
    form, target, precision = kind
    return Evaluation(
        source=source,
        format=form,
        target=target,
        precision=precision,
        engine=engine,
        metric=metric,
        value=value,
        samples=samples,
        others=dict(others),
    )
