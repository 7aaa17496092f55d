"""`edge evaluate`: the task's metric of every artifact on a data file."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.options import (
    AsJson,
    BundlePath,
    Formats,
    LabelColumn,
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
        str, typer.Option(help="TSV, CSV, JSON lines, Parquet, or datasets name, with labels.")
    ],
    format: Formats = None,
    precision: Precisions = None,
    engine: Annotated[str | None, typer.Option(help="Run in this engine only.")] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Use only so many rows, from the start.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    threads: Threads = 1,
    json: AsJson = False,
) -> None:
    """Measure the accuracy of every artifact, from the bundle alone."""
    from edge.bundle import Bundle
    from edge.data import read_table
    from edge.evaluate import evaluate as run_evaluate

    opened = Bundle.open(bundle)
    table = read_table(data, columns=columns(text_column, pair_column, label_column))
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
    header = ("format", "precision", "engine", "metric", "value", "samples")
    rows = [
        (r.format, r.precision, r.engine, r.metric, f"{r.value:.4f}", str(r.samples)) for r in found
    ]
    print_table(str(bundle), header, rows)
