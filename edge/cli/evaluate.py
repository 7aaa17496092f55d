"""`edge evaluate`: the task's metric of artifacts and checkpoints on a data file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Formats,
    LabelColumn,
    MaxSamples,
    PairColumn,
    Precisions,
    TextColumn,
    Threads,
    TrustRemoteCode,
    columns,
    print_json,
    print_table,
    several,
)
from edge.console import say

if TYPE_CHECKING:
    from edge.checkpoint import Checkpoint
    from edge.data import Columns, Table
    from edge.evaluate import Evaluation, Job


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Bundle folders, and checkpoints to measure beside them.")
    ],
    data: Annotated[
        str, typer.Option(help="TSV, CSV, JSON, Parquet, CoNLL, text lines, or datasets name.")
    ],
    format: Formats = None,
    precision: Precisions = None,
    engine: Annotated[str | None, typer.Option(help="Run artifacts in this engine only.")] = None,
    max_samples: MaxSamples = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Longest input of checkpoints, in tokens: that of the first bundle, or else the "
            "longest that the checkpoint reads.",
        ),
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    threads: Threads = 1,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: AsJson = False,
) -> None:
    """Measure the accuracy of every artifact of a bundle, and of checkpoints.

    A model that fails leaves the others' figures; the exit code is 1 then.
    """
    from edge.bundle import Bundle
    from edge.engines.runner import bundle_task
    from edge.evaluate import checkpoint_job, evaluation_jobs

    wanted = columns(text_column, pair_column, label_column)
    checkpoints = [name for name in models if _is_checkpoint(Path(name))]
    bundles = [Bundle.open(Path(name)) for name in models if name not in checkpoints]
    jobs: list[Job] = []
    for bundle in bundles:
        table = bundle_task(bundle).read(data, columns=wanted).head(max_samples)
        jobs += evaluation_jobs(
            bundle,
            table,
            formats=several(format),
            precisions=several(precision),
            engine=engine,
            threads=threads,
        )
    if max_length is None and bundles:
        max_length = bundles[0].manifest.max_length
    open_source = partial(
        _open_checkpoint,
        data=data,
        columns=wanted,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    for checkpoint, table in map(open_source, checkpoints):
        jobs.append(checkpoint_job(checkpoint, table.head(max_samples), max_length=max_length))
    _run(jobs, ", ".join(models), as_json=json)


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "modules.json"))


def _open_checkpoint(
    source: str, *, data: str, columns: Columns, allow_pickle: bool, trust_remote_code: bool
) -> tuple[Checkpoint, Table]:
    from edge.checkpoint import glance, open_checkpoint
    from edge.console import hush

    if (task := glance(source)) is not None:
        # A mistake in the file is told before Transformers is loaded.
        task.check_file(data, columns=columns)
    with hush():
        checkpoint = open_checkpoint(
            source, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
    return checkpoint, checkpoint.task.read(data, columns=columns)


def _run(jobs: Sequence[Job], title: str, *, as_json: bool) -> None:
    """Run all jobs and print what was found, also where one fails or the rest is interrupted."""
    from edge.errors import EdgeError, UserError

    rows: list[Evaluation] = []
    failures: list[str] = []
    try:
        for job in jobs:
            try:
                rows.append(job())
            except UserError:
                raise
            except EdgeError as error:
                failures.append(str(error))
                say(f"failed: {error}")
    finally:
        if rows or failures:
            _print(rows, failures, title, as_json=as_json)
    if failures:
        raise typer.Exit(1)


def _print(
    rows: Sequence[Evaluation], failures: Sequence[str], title: str, *, as_json: bool
) -> None:
    from edge.evaluate import CHECKPOINT

    if as_json:
        values = [(row.format == CHECKPOINT, row.model_dump(mode="json")) for row in rows]
        print_json(
            {
                "artifacts": [value for checkpoint, value in values if not checkpoint],
                "checkpoints": [value for checkpoint, value in values if checkpoint],
                "failures": list(failures),
            }
        )
        return
    from edge.formats import variant

    header = ("model", "format", "precision", "engine", "metric", "value", "samples")
    cells = [
        (
            r.source,
            r.format,
            r.precision if r.format == CHECKPOINT else variant(r.format, r.target, r.precision),
            r.engine,
            r.metric,
            f"{r.value:.4f}",
            str(r.samples),
        )
        for r in rows
    ]
    print_table(title, header, cells)
