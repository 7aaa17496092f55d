"""The task's own metric: of every artifact, from the bundle alone, and of anything that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from edge.bundle import Artifact, Bundle
from edge.checkpoint.checkpoint import Checkpoint, load_tokenizer
from edge.checkpoint.checkpoint import max_length as longest_input
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


# How a checkpoint is called where an artifact has its format.
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
    found = checkpoint_job(checkpoint, table, max_length=max_length)()
    return found.metric, found.value


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
    """The evaluations of `evaluate`, one a job, so that what one finds outlasts another's failure.

    Raises what `evaluate` raises before it runs an artifact.
    """
    ready = examples or bundle_examples(bundle, table)

    def job(artifact: Artifact, runs_in: Engine) -> Evaluation:
        title = f"evaluate {artifact.name} in {runs_in.name} on {counted(len(table), 'row')}"
        with step(title), hush(), Runner(bundle, artifact, runs_in, threads=threads) as runner:
            metrics = ready.score(runner.infer(ready.encodings))
        kind = (artifact.format, artifact.target, str(artifact.precision))
        return _evaluation(str(bundle.path), kind, runs_in.name, metrics, len(table))

    chosen = choose(bundle, formats, precisions, engine)
    return [partial(job, artifact, runs_in) for artifact, runs_in in chosen]


def checkpoint_job(checkpoint: Checkpoint, table: Table, *, max_length: int | None = None) -> Job:
    """The evaluation of a checkpoint in PyTorch, as `evaluation_jobs` of artifacts.

    max_length: in tokens, where the checkpoint reads as many; else the longest that it reads. The
    job raises CheckpointError, or DataError when the table does not fit.
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
    """A row of the metrics of a task, the main one first; kind: format, target, precision."""
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
