"""`edge demo`: the whole way on generated texts, offline."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.options import AsJson, Output
from edge.cli.run import print_run


def demo(
    output: Output,
    seed: Annotated[int, typer.Option(min=0, help="Seed of texts and training.")] = 0,
    json: AsJson = False,
) -> None:
    """Generate texts, train a teacher, distil, convert, verify, benchmark, and report."""
    from edge.pipeline.demo import demo as run_demo

    print_run(run_demo(output, seed=seed), as_json=json)
