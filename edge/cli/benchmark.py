"""`edge benchmark`: artifacts timed beside a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Formats,
    PairColumn,
    Precisions,
    TextColumn,
    Threads,
    columns,
    given,
    print_json,
    print_table,
    several,
)
from edge.console import human_bytes, three_figures

if TYPE_CHECKING:
    from benchmark import BenchmarkResult, Row


def benchmark(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders that edge convert wrote.")],
    baseline: Annotated[
        str, typer.Option(help="bert-base, a checkpoint folder, or none.")
    ] = "bert-base",
    threads: Threads = 1,
    seq_length: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of every input, padded. 128, or less if a bundle is."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick (the default), standard or mlperf.")
    ] = None,
    format: Formats = None,
    precision: Precisions = None,
    data: Annotated[
        str | None, typer.Option(help="Data file of texts to run. The bundle's golden texts.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the order of turns and the choice of texts.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write a report to.")
    ] = None,
    allow_pickle: AllowPickle = False,
    json: AsJson = False,
) -> None:
    """Time artifacts and a baseline in turns, each in a process of its own."""
    from benchmark import BenchmarkConfig, Report, write_report
    from benchmark import benchmark as run_benchmark
    from benchmark.render import is_report
    from edge.pipeline.baseline import with_baseline
    from edge.storage import check_target

    if output is not None:
        check_target(output, replaces=is_report)
    values = {
        "bundles": tuple(bundles),
        "format": several(format),
        "precision": several(precision),
        "threads": threads,
        "seq_length": seq_length,
        "preset": preset,
        "data": data,
        "columns": columns(text_column, pair_column, None),
        "seed": seed,
    }
    config = BenchmarkConfig.build(given(values), where="edge benchmark")
    result = run_benchmark(with_baseline(config, baseline, allow_pickle=allow_pickle))
    if output is not None:
        names = ", ".join(path.resolve().name for path in bundles)
        write_report(output, Report.of(result, title=f"Benchmark of {names}"))
    if json:
        rows = [row.model_dump(mode="json") for row in result.rows]
        print_json({"rows": rows, "not_measured": list(result.not_measured)})
        return
    _print(result)


def _print(result: BenchmarkResult) -> None:
    """A compact table on stdout; what was not measured on stderr."""
    from edge.console import say

    header = ("model", "engine", "size", "p50 ms", "p90 ms", "x baseline", "x same engine", "valid")
    title = f"Latency at {result.rows[0].inputs.seq_len} tokens" if result.rows else "Latency"
    print_table(title, header, [_line(row) for row in result.rows])
    for sentence in result.not_measured:
        say(sentence)


def _line(row: Row) -> tuple[str, ...]:
    from benchmark.wording import engine_title

    latency = row.latency_ms
    return (
        row.model.id,
        engine_title(row.runtime.name),
        human_bytes(row.model.bytes),
        three_figures(latency.p50) if latency else "-",
        three_figures(latency.p90) if latency else "-",
        _ratio(row.ratio_to_baseline),
        _ratio(row.ratio_same_engine),
        row.validity.status.replace("_", " "),
    )


def _ratio(ratio: Any) -> str:
    """ "23.1 (22.4-23.9)"."""
    if ratio is None:
        return "-"
    if ratio.ci95 is None:
        return three_figures(ratio.value)
    low, high = (three_figures(end) for end in ratio.ci95)
    return f"{three_figures(ratio.value)} ({low}-{high})"
