"""Speed-up of rows over the baseline, computed from rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmark import statistics
from benchmark.config import part_of_rounds
from benchmark.keys import REFERENCE_ENGINE, reference_at, reference_beside
from benchmark.schema import Latency, ProtocolInfo, Ratio, Row


def with_ratios(rows: Sequence[Row], *, saved: Sequence[Row] | None = None) -> tuple[Row, ...]:
    """Return the rows of one comparison, with their ratios to the baseline among them.

    saved: rows of a baseline that was timed in another run, in place of one among the rows.
    """

    def ratio(row: Row, engine: str) -> Ratio | None:
        if saved is None:
            reference = reference_beside(row, rows, engine)
        else:
            reference = reference_at(row, saved, engine)
        return None if reference is None else _ratio(row, reference, paired=saved is None)

    return tuple(
        row.model_copy(
            update={
                "ratio_to_baseline": ratio(row, REFERENCE_ENGINE),
                "ratio_same_engine": ratio(row, row.runtime.name),
            }
        )
        for row in rows
    )


def with_current_ratios(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return rows of saved reports; ratios that contradict their medians are recomputed.

    Earlier versions divided medians over common rounds only, and treated the engine of a format's
    other target as the same engine.
    """

    def current(row: Row) -> Row:
        same = row.ratio_same_engine
        if same is not None and same.engine != row.runtime.name:
            same = None
        changes = {
            "ratio_to_baseline": _current(row, row.ratio_to_baseline, rows),
            "ratio_same_engine": _current(row, same, rows),
        }
        return row.model_copy(update=changes)

    return tuple(map(current, rows))


def _current(row: Row, ratio: Ratio | None, rows: Sequence[Row]) -> Ratio | None:
    if ratio is None or not ratio.paired:
        return ratio
    reference = reference_beside(row, rows, ratio.engine, baseline=ratio.baseline)
    if reference is None or row.latency_ms is None or reference.latency_ms is None:
        return ratio
    above, below = reference.latency_ms.p50, row.latency_ms.p50
    if not above or not below or math.isclose(above / below, ratio.value, rel_tol=1e-9):
        return ratio
    return _ratio(row, reference, paired=True) or ratio


def _ratio(row: Row, reference: Row, *, paired: bool) -> Ratio | None:
    """Return the ratio, or None if one of the rows has no single recorded runs."""
    above, below = blocks_of(reference), blocks_of(row)
    seed = row.protocol.seed or 0
    if not above or not below:
        return None
    if paired:
        estimate = statistics.ratio(above, below, seed=seed, parts=parts_of(row.protocol))
    else:
        estimate = statistics.unpaired_ratio(above, below, seed=seed)
    names = {"baseline": reference.model.id, "engine": reference.runtime.name}
    return ratio_of(estimate, **names, paired=paired)


def ratio_of(
    estimate: tuple[float, statistics.Interval | None] | None,
    *,
    baseline: str,
    engine: str,
    paired: bool = True,
) -> Ratio | None:
    """Return a ratio and its interval as part of a row."""
    if estimate is None:
        return None
    value, interval = estimate
    return Ratio(
        value=value,
        ci95=interval,
        baseline=baseline,
        engine=engine,
        indistinguishable=interval is None or interval[0] <= 1 <= interval[1],
        paired=paired,
    )


def blocks_of(row: Row) -> dict[int, statistics.Array]:
    """Return the recorded values of a row by round; empty if none were recorded."""
    latency: Latency | None = row.latency_ms
    if latency is None or not latency.blocks:
        return {}
    values = np.asarray(latency.raw_ns, np.int64)
    ends = np.cumsum([count for _, count in latency.blocks])
    parts = np.split(values, ends[:-1])
    return {number: part for (number, _), part in zip(latency.blocks, parts, strict=True)}


def parts_of(protocol: ProtocolInfo) -> statistics.Parts:
    """Return the rounds of each process; empty if they are unknown."""
    if not protocol.rounds or not protocol.processes:
        return ()
    count = protocol.processes
    return [part_of_rounds(protocol.rounds, number, count) for number in range(count)]
