"""`edge exits`: what a checkpoint's exits cost and give, and plain models cut at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AsJson,
    LabelColumn,
    MaxSamples,
    PairColumn,
    TextColumn,
    columns,
    print_json,
    print_table,
    several,
)

if TYPE_CHECKING:
    from edge.checkpoint import Checkpoint
    from edge.exits import ExitReport


def exits(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint with exits, as edge distill --recipe byot makes.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Measure accuracy and mean depth on this data file.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Uncertainty, 0 to 1, below which a text leaves; repeat or separate."),
    ] = None,
    cut: Annotated[
        int | None, typer.Option(min=1, help="Write the plain model that ends after this layer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write, with --cut.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest input, in tokens, with --data.")
    ] = None,
    max_samples: MaxSamples = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    json: AsJson = False,
) -> None:
    """Measure the exits of a checkpoint, or cut a plain shallower model at one of them."""
    from edge.checkpoint import glance, open_checkpoint
    from edge.console import hush, show
    from edge.errors import ConfigError
    from edge.exits import cut_exit, measure_exits

    if (data is None) == (cut is None):
        raise ConfigError("edge exits needs --data to measure, or --cut LAYER to write a model")
    if (cut is None) != (output is None):
        raise ConfigError("--cut LAYER and --output FOLDER go together")
    thresholds = _thresholds(threshold)
    read = columns(text_column, pair_column, label_column)
    if data is not None and (task := glance(checkpoint)) is not None:
        # A mistake in the file is told before Transformers is loaded.
        task.check_file(data, columns=read)
    with hush():
        opened = open_checkpoint(checkpoint)
    if cut is not None and output is not None:
        cut_exit(opened, cut, output)
        print_json({"output": str(output), "layer": cut}) if json else show(
            f"{output}: {cut} layers of {checkpoint}; edge convert takes it"
        )
        return
    assert data is not None
    table = opened.task.read(data, columns=read)
    report = measure_exits(
        opened,
        table.head(max_samples),
        max_length=_length(opened, max_length),
        thresholds=thresholds,
    )
    print_json(report.model_dump(mode="json")) if json else _print(report)


def _thresholds(values: list[str] | None) -> tuple[float, ...]:
    from edge.errors import ConfigError

    try:
        found = tuple(float(value) for value in several(values))
    except ValueError as error:
        raise ConfigError(f"--threshold needs numbers from 0 on ({error})") from None
    if not all(value >= 0 for value in found):
        raise ConfigError("--threshold needs numbers from 0 on")
    return found


def _length(opened: Checkpoint, asked: int | None) -> int:
    from edge.checkpoint import load_tokenizer, max_length
    from edge.errors import ConfigError

    limit = max_length(opened, load_tokenizer(opened))
    if asked is not None and asked > limit:
        raise ConfigError(f"--max-length {asked} is more than the {limit} tokens it can read")
    return asked or limit


def _print(report: ExitReport) -> None:
    layers = [depth.layer for depth in report.depths]
    header = ("threshold", report.metric, "mean layers", "times fewer")
    shares = tuple(f"left after {layer}" for layer in layers)
    rows = [
        (
            f"{row.threshold:g}",
            f"{row.value:.4f}",
            f"{row.mean_layers:.2f}",
            f"{row.times_fewer:.2f}",
            *(f"{row.left_after[layer]:.0%}" for layer in layers),
        )
        for row in report.thresholds
    ]
    depths = [(str(depth.layer), f"{depth.value:.4f}") for depth in report.depths]
    print_table("", ("layers", report.metric), depths)
    print_table("", (*header, *shares), rows)
