"""`edge demo`: the whole way on generated texts, offline."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.options import AsJson, Output
from edge.cli.run import print_run


def demo(
    output: Output,
    seed: Annotated[int, typer.Option(min=0, help="Seed of texts and training.")] = 0,
    train_rows: Annotated[int | None, typer.Option(min=50, help="Texts to train on.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the run, as of edge run.")] = "demo",
    json: AsJson = False,
) -> None:
    """Generate texts, train a teacher, distill, convert, verify, benchmark, and report."""
    from edge.pipeline.demo import TRAIN_ROWS
    from edge.pipeline.demo import demo as run_demo

    result = run_demo(output, seed=seed, train_rows=train_rows or TRAIN_ROWS, recipe=recipe)
    print_run(result, as_json=json)
