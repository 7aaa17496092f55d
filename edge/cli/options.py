"""Options that several commands share, so that a name means the same everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import printable, show_json, three_figures

if TYPE_CHECKING:
    from edge.data import Columns

BundlePath = Annotated[Path, typer.Argument(help="Bundle folder that edge convert wrote.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="onnx, tflite, coreml; repeat or separate by commas. All."),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        help="fp32, fp16, int8, int8-static, int8-weights, int4, palette8 to palette2, auto; "
        "repeat or separate by commas.",
    ),
]
SeqLengths = Annotated[
    list[str] | None,
    typer.Option("--seq-length", help="Length in tokens; repeat or separate by commas."),
]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text, if not 'text'.")]
PairColumn = Annotated[str | None, typer.Option(help="Column of the second text, if any.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the target, if not 'label'.")]
MaxSamples = Annotated[
    int | None, typer.Option(min=1, help="Use only so many rows, from the start.")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads the engine may use.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Train in bfloat16.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Load pickled weights; they can run code.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a checkpoint.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def several(values: Sequence[str] | None) -> tuple[str, ...]:
    """Values of an option given several times, or once with commas."""
    return tuple(
        part.strip() for value in values or () for part in value.split(",") if part.strip()
    )


def whole_numbers(values: Sequence[str] | None, option: str) -> tuple[int, ...]:
    """Like `several`, as positive integers; raises ConfigError for anything else."""
    from edge.errors import ConfigError

    found = []
    for value in several(values):
        # Also no digits of other scripts, superscripts, and more than Python converts.
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", value):
            raise ConfigError(f"{option} needs whole numbers above 0, not '{value}'")
        found.append(int(value))
    return tuple(found)


def columns(text: str | None, pair: str | None, label: str | None) -> Columns:
    """The columns named by flags."""
    from edge.data import Columns

    return Columns(text=text, text_pair=pair, label=label)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only what was asked for; the rest keeps the one default that its configuration has."""
    return {key: value for key, value in values.items() if value not in (None, ())}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    show_json(value)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: drawn on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            print("\t".join(map(printable, row)))
        sys.stdout.flush()
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(printable(title)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    Console().print(table)


def times(value: float, interval: Sequence[float] | None) -> str:
    """A ratio with its 95 % interval where there is one: "23.1 (22.4-23.9)"."""
    if interval is None:
        return three_figures(value)
    low, high = (three_figures(end) for end in interval)
    return f"{three_figures(value)} ({low}-{high})"


def number(value: float | None, form: str = ".4f") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)
