"""The task's own metric: of every artifact, from the bundle alone, and of anything that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from edge.bundle import Bundle
from edge.checkpoint import Checkpoint
from edge.config import Config
from edge.console import hush, step
from edge.data import Table
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer, choose
from edge.reference import Reference
from edge.tasks import Outputs, Task
from edge.tasks.base import Examples
from edge.tasks.summary import say_understood
from edge.tokenization import Encoding, Tokenizer

# Outputs of each encoding in turn, without batch dimension and padding: Runner.infer is one.
Infer = Callable[[Iterable[Encoding]], Iterable[Outputs]]


class Evaluation(Config):
    """One artifact's metric over `samples` rows of a data file; more is better.

    others: what else was found out in the same runs, by name.
    """

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
    """Name and value of the task's main metric of whatever `infer` runs; more is better.

    max_length: in tokens. Raises DataError when the table does not fit the task.
    """
    examples = task.examples(table, tokenizer, max_length=max_length)
    return next(iter(examples.score(infer(examples.encodings)).items()))


def evaluate_checkpoint(
    checkpoint: Checkpoint, table: Table, *, max_length: int
) -> tuple[str, float]:
    """What `score` finds for the checkpoint itself, in PyTorch: what its artifacts may lose from.

    max_length: in tokens. Raises CheckpointError, or DataError when the table does not fit.
    """
    with hush():
        reference = Reference(checkpoint)
    with step(f"evaluate {checkpoint.source} on {len(table)} rows"), hush():
        return score(
            checkpoint.task, reference.tokenizer, table, reference.infer, max_length=max_length
        )


def bundle_examples(bundle: Bundle, table: Table) -> Examples:
    """The rows as the bundle's model runs them; says in a line what was understood of them.

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
    """Run every row through every artifact, each text at its own length, as an app would.

    engine: run in this one, leaving out artifacts of other formats; by default the first that is
    available. examples: those of `table`, where `bundle_examples` gave them already.
    Raises DataError when the table does not fit the bundle's task.
    """
    examples = examples or bundle_examples(bundle, table)
    found = []
    for artifact, runs_in in choose(bundle, formats, precisions, engine):
        with Runner(bundle, artifact, runs_in, threads=threads) as runner:
            title = f"evaluate {artifact.name} in {runner.engine.name} on {len(table)} rows"
            with step(title), hush():
                metrics = examples.score(runner.infer(examples.encodings))
            (metric, value), *others = metrics.items()
            found.append(
                Evaluation(
                    format=artifact.format,
                    target=artifact.target,
                    precision=artifact.precision,
                    engine=runner.engine.name,
                    metric=metric,
                    value=value,
                    samples=len(table),
                    others=dict(others),
                )
            )
    return found
