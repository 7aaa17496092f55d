"""`edge benchmark`: artifacts timed beside a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Formats,
    LabelColumn,
    PairColumn,
    Precisions,
    SeqLengths,
    TextColumn,
    columns,
    given,
    number,
    print_json,
    print_table,
    several,
    times,
    whole_numbers,
)
from edge.console import human_bytes, three_figures

if TYPE_CHECKING:
    from benchmark import BaselineMaker, BenchmarkConfig, BenchmarkResult, Row


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Bundle folders that edge convert wrote; beside them checkpoints to time in "
            "PyTorch, folders or distilbert-base.",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(help="Where to time: local is this machine, edge devices lists others."),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(help="bert-base, a checkpoint folder, a bundle, a saved report, or none."),
    ] = "bert-base",
    threads: Annotated[
        list[str] | None,
        typer.Option(help="Threads of the engine; several, separated by commas, make a sweep."),
    ] = None,
    seq_length: SeqLengths = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(help="Batch size; several, separated by commas, make a sweep."),
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(
            help="fixed: every input is as long as --seq-length; shortest: as the artifact allows."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick, standard, mlperf or full-pass.")
    ] = None,
    cooldown: Annotated[
        float | None, typer.Option(min=0, help="Seconds of rest before each round.")
    ] = None,
    sustained: Annotated[
        float | None, typer.Option(min=0, help="Minutes that each model then runs without a rest.")
    ] = None,
    format: Formats = None,
    precision: Precisions = None,
    data: Annotated[
        str | None, typer.Option(help="Data file of texts to run. The bundle's golden texts.")
    ] = None,
    eval: Annotated[
        str | None, typer.Option(help="Data file with labels, for the metric on the device.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also tell which operators take how long.")
    ] = False,
    budget: Annotated[
        Path | None, typer.Option(help="YAML of limits; exit code 1 when one is broken.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the order of turns and the choice of texts.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address of this machine that --device browser serves at.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Its port; any free one by default.")] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file of a certificate and its key: that page comes by https."),
    ] = None,
    tools: Annotated[
        Path | None, typer.Option(help="Folder of programs to run on --device adb:SERIAL.")
    ] = None,
    sysroot: Annotated[
        Path | None, typer.Option(help="Folder of an Arm system for --device qemu:CPU.")
    ] = None,
    remote_python: Annotated[str | None, typer.Option(help="Python on --device ssh:HOST.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds to wait for a device's answer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write a report to.")
    ] = None,
    allow_pickle: AllowPickle = False,
    json: AsJson = False,
) -> None:
    """Time artifacts and a baseline in turns, each in a process of its own."""
    from benchmark import BenchmarkConfig, read_budget
    from edge.errors import MeasurementError
    from edge.pipeline.baseline import baseline_maker

    bundles, checkpoints = _sorted(models)
    limits = None if budget is None else read_budget(budget)
    options = given(
        {
            "host": host,
            "port": port,
            "certificate": certificate,
            "tools": tools,
            "sysroot": sysroot,
            "python": remote_python,
            "timeout_s": timeout,
        }
    )
    values = {
        "bundles": bundles,
        "checkpoints": checkpoints,
        "device": device,
        "options": options or None,
        "format": several(format),
        "precision": several(precision),
        "threads": whole_numbers(threads, "--threads"),
        "seq_length": whole_numbers(seq_length, "--seq-length"),
        "batch": whole_numbers(batch, "--batch"),
        "padding": padding,
        "preset": preset,
        "data": data,
        "eval": eval,
        "columns": columns(text_column, pair_column, label_column),
        "profile": profile or None,
        "seed": seed,
    }
    config = BenchmarkConfig.build(given(values), where="edge benchmark")
    config = _with_rests(config, cooldown, sustained)
    maker = baseline_maker(baseline, allow_pickle=allow_pickle)
    names = ", ".join(Path(name).resolve().name for name in models)
    result = _measure(config, maker, output, title=f"Benchmark of {names}")
    violations = [] if limits is None else limits.violations(result.rows)
    if json:
        rows = [row.model_dump(mode="json") for row in result.rows]
        found = {"rows": rows, "not_measured": list(result.not_measured), "broken": violations}
        print_json(found)
    else:
        _print(result)
    if result.failure is not None:
        again = "" if output is None else "; the same command goes on from there"
        raise MeasurementError(f"{result.failure} (what was measured until then is kept{again})")
    if violations:
        raise MeasurementError(f"over budget: {'; '.join(violations)}")


def _measure(
    config: BenchmarkConfig, maker: BaselineMaker, output: Path | None, *, title: str
) -> BenchmarkResult:
    """Measure, and write the report where one is asked for; its journal goes when it stands."""
    from benchmark import Report, remove_journal, write_report
    from benchmark import benchmark as run_benchmark
    from benchmark.report.render import is_report
    from edge.storage import check_target, follow, home, output_lock

    if output is None:
        return run_benchmark(config, make_baseline=maker)
    with output_lock(output):
        check_target(output, replaces=is_report, as_whole=False)
        path = follow(output)
        journal = home(path) / f"{path.name}.measuring.jsonl"
        result = run_benchmark(config, make_baseline=maker, journal=journal, keep_journal=True)
        write_report(output, Report.of(result, title=title))
        if result.failure is None:
            remove_journal(journal)
    return result


def _sorted(models: list[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Bundles, and checkpoints; raises ConfigError where no bundle says which texts to run."""
    from edge.bundle import is_bundle
    from edge.errors import ConfigError
    from edge.pipeline.baseline import KNOWN, known_checkpoint

    bundles, checkpoints = [], []
    for name in models:
        path = Path(name)
        if name in KNOWN:
            checkpoints.append(known_checkpoint(name))
        elif (path / "config.json").is_file() and not is_bundle(path):
            checkpoints.append(path)
        else:
            bundles.append(path)
    if not bundles:
        raise ConfigError("name a bundle beside the checkpoints: its texts are what all models run")
    return tuple(bundles), tuple(checkpoints)


def _with_rests(
    config: BenchmarkConfig, cooldown_s: float | None, sustained_min: float | None
) -> BenchmarkConfig:
    """The preset with its rests and its sustained run as asked for."""
    changes = {"cooldown_s": cooldown_s, "sustained_s": sustained_min and 60 * sustained_min}
    asked = {name: value for name, value in changes.items() if value}
    if not asked:
        return config
    return config.model_copy(
        update={"protocol": config.effective_protocol.model_copy(update=asked)}
    )


def _print(result: BenchmarkResult) -> None:
    """A compact table on stdout; what was not measured on stderr."""
    from edge.console import say

    header = (
        *("model", "engine", "tokens", "threads", "batch", "size"),
        *("p50 ms", "p90 ms", "x baseline", "x same engine", "metric", "valid"),
    )
    print_table("Latency", header, [_line(row) for row in result.rows])
    for sentence in result.not_measured:
        say(sentence)


def _line(row: Row) -> tuple[str, ...]:
    from benchmark.titles import engine_title

    latency = row.latency_ms
    return (
        row.model.id,
        engine_title(row.runtime.name),
        number(row.inputs.seq_len, "d"),
        number(row.runtime.threads, "d"),
        str(row.inputs.batch),
        "-" if row.model.bytes is None else human_bytes(row.model.bytes),
        three_figures(latency.p50) if latency and latency.p50 is not None else "-",
        three_figures(latency.p90) if latency and latency.p90 is not None else "-",
        *(
            times(ratio.value, ratio.ci95) if ratio else "-"
            for ratio in (row.ratio_to_baseline, row.ratio_same_engine)
        ),
        number(None if row.accuracy is None else row.accuracy.value),
        row.validity.status.replace("_", " "),
    )
