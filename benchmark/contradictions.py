"""Figures of one row that contradict each other: such a row was altered after it was written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from benchmark.schema import Latency, Ratio, Row

# Metrics that are a share of right answers.
SHARES = {"accuracy", "exact_match", "exact match", "top-1 accuracy"}
_NS_PER_MS = 1e6
# Above the error of sums in another order, below any digit that is shown.
_TOLERANCE = 1e-6


def contradiction(row: Row) -> str | None:
    """Return the first contradiction in a row of a file, in words; None without one."""
    latency = row.latency_ms
    parts = (
        _check_validity(row),
        () if latency is None else _check_blocks(latency),
        () if latency is None else _check_figures(latency),
        _check_intervals(row),
        _check_others(row),
    )
    return next((words for part in parts for words in part), None)


def same_measurement(row: Row, other: Row) -> bool:
    """Return True if two rows with the same key hold the same measurements.

    A report adds accuracies and recomputes ratios; two logs of loadgen describe different parts
    of one run.
    """
    if row.role == "imported":
        return True
    names = ("latency_ms", "memory", "instructions", "stages", "sustained", "operators")
    return all(getattr(row, name) == getattr(other, name) for name in names)


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raises ValueError where it has a key twice, of which one is wrong."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice")
    return values


def _check_validity(row: Row) -> Iterator[str]:
    status, reasons = row.validity.status, row.validity.reasons
    if (status == "not_measured") != (row.latency_ms is None):
        yield f"validity.status is {status}, and latency_ms is {_known(row.latency_ms)}"
    if (status == "valid") != (not reasons):
        yield f"validity.status is {status} with {len(reasons)} reasons"
    if status == "valid" and (row.device.kind != "real" or row.role == "imported"):
        yield f"validity.status is valid for a {row.device.kind} device and role {row.role}"
    if row.role != "imported" and not _is_time(row.started_utc):
        yield f"started_utc is no time: '{row.started_utc}'"


def _known(latency: Latency | None) -> str:
    return "null" if latency is None else "there"


def _is_time(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return False
    return True


def _check_blocks(latency: Latency) -> Iterator[str]:
    recorded = sum(count for _, count in latency.blocks)
    if recorded != len(latency.raw_ns):
        yield f"latency_ms.blocks are of {recorded} values, raw_ns has {len(latency.raw_ns)}"
    if len({number for number, _ in latency.blocks}) < len(latency.blocks):
        yield "latency_ms.blocks has a round twice"
    if (latency.recorded == "nothing") != (not latency.raw_ns):
        yield f"latency_ms.recorded is {latency.recorded}, raw_ns has {len(latency.raw_ns)}"
    if latency.recorded == "runs" and latency.n != len(latency.raw_ns):
        yield f"latency_ms.n is {latency.n}, raw_ns has {len(latency.raw_ns)}"


def _check_figures(latency: Latency) -> Iterator[str]:
    """Compare figures with the recorded values; where there are none, by their order alone."""
    if not latency.raw_ns:
        names = ("min", "p50", "p90", "p95", "p99", "max")
        known = [(name, getattr(latency, name)) for name in names]
        known = [(name, value) for name, value in known if value is not None]
        for (name, value), (above, larger) in itertools.pairwise(known):
            if value > larger * (1 + _TOLERANCE):
                yield f"latency_ms.{name} is {value:g}, above {above} ({larger:g})"
        return
    values = np.asarray(latency.raw_ns, np.float64) / _NS_PER_MS
    p50, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    true = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    true |= {"p50": p50, "p90": p90, "p95": p95, "p99": p99}
    for name, value in true.items():
        shown = getattr(latency, name)
        if shown is not None and not math.isclose(shown, value, rel_tol=_TOLERANCE):
            yield f"latency_ms.{name} is {shown:g}, by raw_ns it is {value:g}"


def _check_intervals(row: Row) -> Iterator[str]:
    latency = row.latency_ms
    if latency is not None and latency.ci95 is not None and latency.p50 is not None:
        yield from _outside("latency_ms", latency.p50, latency.ci95)
    for name in ("ratio_to_baseline", "ratio_same_engine"):
        ratio: Ratio | None = getattr(row, name)
        if ratio is None:
            continue
        if ratio.ci95 is not None:
            yield from _outside(name, ratio.value, ratio.ci95)
        distinguishable = ratio.ci95 is not None and not ratio.ci95[0] <= 1 <= ratio.ci95[1]
        if ratio.indistinguishable == distinguishable:
            yield f"{name}.indistinguishable contradicts its interval"


def _outside(name: str, value: float, interval: tuple[float, float]) -> Iterator[str]:
    low, high = interval[0] * (1 - _TOLERANCE), interval[1] * (1 + _TOLERANCE)
    if not low <= value <= high:
        yield f"{name}.ci95 is {interval[0]:g} to {interval[1]:g} and leaves out {value:g}"


def _check_others(row: Row) -> Iterator[str]:
    accuracy = row.accuracy
    if accuracy is not None and accuracy.metric.lower() in SHARES and not 0 <= accuracy.value <= 1:
        yield f"accuracy.value is {accuracy.value:g}, a share is from 0 to 1"
    for place, stretch in enumerate(row.sustained):
        if stretch.end_s < stretch.start_s:
            yield f"sustained.{place} ends before it begins"
