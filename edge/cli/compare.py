"""`edge compare`: which differences between two benchmark runs are real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import AsJson, given, print_json, print_table, times
from edge.console import human_bytes, three_figures

if TYPE_CHECKING:
    from benchmark.report.compare import Change, MetricChange, Pair, RunComparison


def compare(
    a: Annotated[Path, typer.Argument(help="Report folder or rows.jsonl of the first run.")],
    b: Annotated[Path, typer.Argument(help="Of the second, which is judged.")],
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="Share that a difference has to be larger than."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    fail_slower: Annotated[
        bool, typer.Option("--fail-slower", help="Exit code 1 when something is really slower.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Tell which artifacts of a second run are faster, slower, or cannot be told apart."""
    from benchmark import compare_runs, read_any
    from edge.errors import MeasurementError

    found = compare_runs(read_any(a), read_any(b), **given({"margin": margin}), seed=seed)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found, a, b)
    if fail_slower and found.slower:
        names = "; ".join(f"{pair.name}: {_times(pair)}" for pair in found.slower)
        raise MeasurementError(f"slower than before: {names}")


def _print(found: RunComparison, a: Path, b: Path) -> None:
    from edge.console import say

    header = (
        *("model", "device", "p50 ms", "times faster (95%)", "by", "verdict", "size", "memory MB"),
        *("instructions", "metric"),
    )
    print_table(f"{b} against {a}", header, [_line(pair) for pair in found.pairs])
    for pair in found.baselines:
        say(f"the baseline itself: {pair.name}: {_change(pair.p50_ms)} ms")
    for sentence in _notes(found):
        say(sentence)
    for path, names in ((a, found.only_a), (b, found.only_b)):
        for name in names:
            say(f"only in {path}: {name}")


def _notes(found: RunComparison) -> list[str]:
    judged = [pair for pair in found.pairs if pair.ratio is not None]
    through = list(dict.fromkeys(pair.through for pair in judged if pair.through))
    notes = []
    if through:
        notes.append(f"ratios are relative to {' and '.join(through)}, timed in both runs")
    if any(pair.through is None for pair in judged):
        notes.append(
            "without a baseline in both runs a ratio also holds what the machine did differently, "
            "which its interval does not know"
        )
    if judged:
        notes.append(
            f"a difference counts when its interval is more than {found.margin:.2g} from 1: opened "
            "anew, an artifact differs from itself by about 0.01"
        )
    if len(judged) > 1:
        notes.append(
            f"verdicts allow for {len(judged)} comparisons (Holm): an interval beyond that can "
            "still be chance"
        )
    if not found.pairs:
        notes.append("the runs have nothing in common")
    return notes


def _line(pair: Pair) -> tuple[str, ...]:
    verdict = pair.verdict if pair.why is None else f"unknown: {pair.why}"
    return (
        pair.name,
        pair.device,
        _change(pair.p50_ms),
        _times(pair),
        _basis(pair),
        verdict,
        _change(pair.size_bytes, sizes=True),
        _change(pair.memory_mb),
        _change(pair.instructions),
        _metric(pair.metric),
    )


def _basis(pair: Pair) -> str:
    """What the ratio is of: the figures beside it, or those over the p50 of a baseline."""
    if pair.ratio is None:
        return "-"
    return "p50" if pair.through is None else f"p50 over that of {pair.through}"


def _times(pair: Pair) -> str:
    return "-" if pair.ratio is None else times(pair.ratio, pair.ci95)


def _change(change: Change, *, sizes: bool = False) -> str:
    """ "10.0 -> 9.5", or one figure where nothing changed."""
    if change.a is None and change.b is None:
        return "-"
    if change.a == change.b and change.a is not None:
        return human_bytes(round(change.a)) if sizes else three_figures(change.a)
    figures = [
        "-" if value is None else human_bytes(round(value)) if sizes else three_figures(value)
        for value in (change.a, change.b)
    ]
    return " -> ".join(figures)


def _metric(found: MetricChange | None) -> str:
    """ "0.8624 -> 0.8658, 0.3 points up, within chance"."""
    if found is None or found.a is None or found.b is None:
        return "-"
    if found.a == found.b:
        return f"{found.a:.4f}"
    points = 100 * (found.b - found.a)
    words = {True: ", within chance", False: ", more than chance", None: ""}[found.within_chance]
    way = "up" if points > 0 else "down"
    return f"{found.a:.4f} -> {found.b:.4f}, {abs(points):.2g} points {way}{words}"
