"""`edge report`: the results of several runs and programs in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import AsJson, Output, print_json


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Report folders, rows.jsonl, and result files of benchmark_model, MLPerf, "
            "MLPerf Mobile or optimum-benchmark."
        ),
    ],
    output: Output,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    json: AsJson = False,
) -> None:
    """Merge the results of several runs, machines and programs into one report."""
    from benchmark import Report, read_several, write_report
    from benchmark.report.render import HTML_FILE, is_report
    from edge.console import counted, say, show
    from edge.storage import check_target, output_lock

    with output_lock(output):
        check_target(output, replaces=is_report, as_whole=False)
        rows = read_several(results)
        write_report(output, Report.merged(rows, title=title))
    if json:
        print_json({"output": str(output), "rows": [row.model_dump(mode="json") for row in rows]})
        return
    say(f"{counted(len(rows), 'row')} of {counted(len({row.run_id for row in rows}), 'run')}")
    show(output / HTML_FILE)
