"""The task's own metric of every artifact, computed from the bundle alone."""

from __future__ import annotations

from collections.abc import Sequence

from edge.bundle import Bundle
from edge.config import Config
from edge.console import hush, step
from edge.data import Table
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer, choose


class Evaluation(Config):
    """One artifact's metric over `samples` rows of a data file."""

    format: str
    precision: str
    engine: str
    metric: str
    value: float
    samples: int


def evaluate(
    bundle: Bundle,
    table: Table,
    *,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
) -> list[Evaluation]:
    """Run every row through every artifact, each text at its own length, as an app would.

    engine: run in this one, leaving out artifacts of other formats; by default the first that is
    available. Raises DataError when the table's targets do not fit the bundle's task.
    """
    targets = bundle_task(bundle).targets(table)
    chosen = choose(bundle, formats, precisions, engine)
    tokenizer = bundle_tokenizer(bundle)
    encodings = tokenizer.encode(table.texts, table.pairs, max_length=bundle.manifest.max_length)
    found = []
    for artifact, runs_in in chosen:
        with Runner(bundle, artifact, runs_in, threads=threads) as runner:
            title = f"evaluate {artifact.name} in {runner.engine.name} on {len(table)} rows"
            with step(title), hush():
                outputs = list(runner.infer(encodings))
            metric, value = runner.task.metric(outputs, targets)
            found.append(
                Evaluation(
                    format=artifact.format,
                    precision=artifact.precision,
                    engine=runner.engine.name,
                    metric=metric,
                    value=value,
                    samples=len(table),
                )
            )
    return found
