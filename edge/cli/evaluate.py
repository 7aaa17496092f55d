"""`edge evaluate`: the task's metric of every artifact on a data file."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.options import (
    AsJson,
    BundlePath,
    Formats,
    LabelColumn,
    MaxSamples,
    PairColumn,
    Precisions,
    TextColumn,
    Threads,
    columns,
    print_json,
    print_table,
    several,
)


def evaluate(
    bundle: BundlePath,
    data: Annotated[
        str, typer.Option(help="TSV, CSV, JSON, Parquet, CoNLL, text lines, or datasets name.")
    ],
    format: Formats = None,
    precision: Precisions = None,
    engine: Annotated[str | None, typer.Option(help="Run in this engine only.")] = None,
    max_samples: MaxSamples = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    threads: Threads = 1,
    json: AsJson = False,
) -> None:
    """Measure the accuracy of every artifact, from the bundle alone."""
    from edge.bundle import Bundle
    from edge.engines.runner import bundle_task
    from edge.evaluate import evaluate as run_evaluate

    opened = Bundle.open(bundle)
    task = bundle_task(opened)
    table = task.read(data, columns=columns(text_column, pair_column, label_column))
    found = run_evaluate(
        opened,
        table.head(max_samples),
        formats=several(format),
        precisions=several(precision),
        engine=engine,
        threads=threads,
    )
    if json:
        print_json({"artifacts": [row.model_dump(mode="json") for row in found]})
        return
    from edge.formats import variant

    header = ("format", "precision", "engine", "metric", "value", "samples")
    rows = [
        (
            r.format,
            variant(r.format, r.target, r.precision),
            r.engine,
            r.metric,
            f"{r.value:.4f}",
            str(r.samples),
        )
        for r in found
    ]
    print_table(str(bundle), header, rows)
