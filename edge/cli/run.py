"""`edge run`: the whole way with one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Bf16,
    Formats,
    LabelColumn,
    Output,
    PairColumn,
    Precisions,
    SeqLengths,
    TextColumn,
    TrustRemoteCode,
    columns,
    given,
    number,
    print_json,
    print_table,
    several,
    times,
    whole_numbers,
)
from edge.console import show, three_figures
from edge.formats import FORMATS, variant

if TYPE_CHECKING:
    from edge.pipeline.run import RunResult


def run(
    recipe: Annotated[
        str,
        typer.Argument(help="Recipe file, default, or a name of `edge recipes` to train by."),
    ],
    teacher: Annotated[str, typer.Option(help="Checkpoint folder or hub id.")],
    train: Annotated[str, typer.Option(help="Data file with texts and labels to train on.")],
    eval: Annotated[str, typer.Option(help="Data file to measure accuracy on.")],
    output: Output,
    student: Annotated[str | None, typer.Option(help="Student, e.g. layers=3.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Training epochs.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate of the training, instead of the recipe's."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest text to train on, in tokens.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the training.")] = None,
    bf16: Bf16 = False,
    format: Formats = None,
    precision: Precisions = None,
    seq_length: SeqLengths = None,
    baseline: Annotated[
        str | None, typer.Option(help="bert-base, a checkpoint folder, or none.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="quick, standard or mlperf.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engines.")] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: AsJson = False,
) -> None:
    """Distill, convert, verify, evaluate, benchmark, and report; flags override the recipe."""
    from edge.pipeline.config import load_recipe
    from edge.pipeline.run import RunInputs
    from edge.pipeline.run import run as run_pipeline

    lengths = whole_numbers(seq_length, "--seq-length")
    overrides: dict[str, dict[str, Any]] = {
        # Not asked for is not against it: the recipe may say so.
        "distill": {
            "student": student,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "max_length": max_length,
            "seed": seed,
            "bf16": bf16 or None,
        },
        "convert": {
            "format": several(format),
            "precision": several(precision),
            "seq_length": lengths,
        },
        "benchmark": {
            "baseline": baseline,
            "preset": preset,
            "threads": threads,
            "seq_length": max(lengths) if lengths else None,
        },
    }
    inputs = RunInputs(
        teacher=teacher,
        train=train,
        eval=eval,
        output=output,
        columns=columns(text_column, pair_column, label_column),
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        overrides={name: given(section) for name, section in overrides.items()},
    )
    print_run(run_pipeline(load_recipe(recipe), inputs), as_json=json)


def print_run(result: RunResult, *, as_json: bool) -> None:
    """A run's result on stdout."""
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    header = ("format", "precision", "bytes", "metric", "value", "agreement", "p50 ms")
    against = "times faster than baseline (95%)"
    print_table(
        result.output,
        (*header, against, "latency is"),
        [_row(result, row) for row in result.rows if row["role"] == "artifact"],
    )
    for row in result.rows:
        if row["role"] == "baseline" and row["latency_ms"]:
            p50 = three_figures(row["latency_ms"]["p50"])
            show(f"baseline: {row['model']['id']} in {row['runtime']['name']}: p50 {p50} ms")
    for sentence in result.not_measured:
        show(f"not measured: {sentence}")
    for part, seconds in result.duration_s.items():
        show(f"{part}: {seconds:.1f} s")
    show(f"bundle: {result.bundle}")
    show(f"report: {result.report}")


def _row(result: RunResult, row: dict[str, Any]) -> tuple[str, ...]:
    model, latency, ratio = row["model"], row["latency_ms"], row["ratio_to_baseline"]
    accuracy = row["accuracy"] or {}
    checks = {
        (artifact.format, artifact.target, artifact.precision): artifact.verification
        for artifact in result.manifest.artifacts
    }
    check = checks.get((model["format"], model["target"], model["precision"]))
    known = model["format"] in FORMATS
    return (
        model["format"],
        # Two artifacts of a precision are told apart by their targets; a checkpoint has none.
        variant(model["format"], model["target"], model["precision"])
        if known
        else model["precision"],
        str(model["bytes"]),
        accuracy.get("metric", "-"),
        number(accuracy.get("value")),
        check.agreement_text if check else "-",
        three_figures(latency["p50"]) if latency else "-",
        times(ratio["value"], ratio["ci95"]) if ratio else "-",
        row["validity"]["status"].replace("_", " "),
    )
