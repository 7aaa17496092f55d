"""Parsers of the output of `benchmark_model` (LiteRT) and `onnxruntime_perf_test`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBER = r"(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)"
_PAIR = re.compile(rf"\b([a-z]\w*)={_NUMBER}")
_TIMINGS = re.compile(rf"\b(Init|First inference): {_NUMBER}")
_PEAK = re.compile(rf"peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_DELTA = re.compile(rf"Memory footprint delta .*\(MB\): init={_NUMBER} overall={_NUMBER}")
_CREATION = re.compile(rf"Session creation time cost: *{_NUMBER} *s")
_FIRST = re.compile(rf"First inference time cost: *{_NUMBER} *ms")
# A line of a result file: name, seconds, peak bytes, processor use in percent, number.
_RESULT = re.compile(rf"[^,]*,{_NUMBER},(\d+),(-?\d+),(\d+)")
# `benchmark_model` prints MiB as MB.
_MB_PER_MIB = 1.048576


@dataclass(frozen=True)
class Runs:
    """Statistics of a number of runs, in microseconds. median, p95: None in builds before 2023."""

    count: int
    average: float
    median: float | None = None
    first: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    p95: float | None = None

    @property
    def median_or_mean(self) -> float:
        """Median, or the mean if the build does not print a median."""
        return self.average if self.median is None else self.median

    @property
    def total_s(self) -> float:
        return self.count * self.average / 1e6


@dataclass(frozen=True)
class ModelLog:
    """Values of a `benchmark_model` log, in milliseconds and 10^6 bytes; None if missing."""

    warm: Runs | None = None
    recorded: Runs | None = None
    init_ms: float | None = None
    first_ms: float | None = None
    peak_mb: float | None = None
    delta_mb: float | None = None


@dataclass(frozen=True)
class OperatorTime:
    """One operator type in an inference, as `benchmark_model` lists it."""

    type: str
    count: int
    total_ms: float


def read_model_log(text: str) -> ModelLog:
    """Parse the output of `benchmark_model`, of any version."""
    statistics = list(_statistics(text))
    timings = {name: float(value) for name, value in _TIMINGS.findall(text)}
    peak, delta = _PEAK.search(text), _DELTA.search(text)
    first = timings.get("First inference")
    return ModelLog(
        warm=statistics[0] if len(statistics) > 1 else None,
        recorded=statistics[-1] if statistics else None,
        init_ms=timings["Init"] / 1e3 if "Init" in timings else None,
        first_ms=first / 1e3 if first is not None else None,
        peak_mb=None if peak is None else float(peak.group(1)) * _MB_PER_MIB,
        delta_mb=None if delta is None else float(delta.group(2)) * _MB_PER_MIB,
    )


def ignored_flags(text: str) -> tuple[str, ...]:
    """Return the flags that a build of `benchmark_model` does not know and ignored."""
    lines = re.findall(r"Unconsumed cmdline flags: (.*)", text)
    return tuple(name for line in lines for name in re.findall(r"--(\w+)", line))


def _statistics(text: str) -> Iterator[Runs]:
    """Yield each line of statistics: the warm-up's, then the recorded runs'."""
    for line in text.splitlines():
        figures = {name: float(value) for name, value in _PAIR.findall(line)}
        # One run, or several that took equally long, have a single figure.
        average = figures.get("avg", figures.get("curr"))
        if "count" in figures and average is None:
            yield Runs(count=0, average=0.0)
        elif "count" in figures and average is not None:
            same = None if "avg" in figures else average
            yield Runs(
                count=int(figures["count"]),
                average=average,
                median=figures.get("median", same),
                first=figures.get("first", same),
                minimum=figures.get("min", same),
                maximum=figures.get("max", same),
                p95=figures.get("p95", same),
            )


def read_operators(text: str) -> list[OperatorTime]:
    """Parse the operators by type of `benchmark_model --enable_op_profiling=true`.

    Only of the recorded runs, without the internal nodes of delegates, which are listed twice.
    Empty for a truncated log.
    """
    _, _, runs = text.rpartition("Profiling Info for Regular Benchmark Runs")
    graphs, _, _ = runs.partition("Delegate internal")
    spent: dict[str, OperatorTime] = {}
    for table in graphs.split("Summary by node type")[1:]:
        for line in itertools.takewhile(str.strip, table.splitlines()[1:]):
            cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
            if len(cells) < 3 or cells[0].startswith("["):
                continue
            # After a slash follows a detail of one node.
            kind, count, total_ms = cells[0].partition("/")[0], int(cells[1]), float(cells[2])
            before = spent.get(kind, OperatorTime(kind, 0, 0.0))
            spent[kind] = OperatorTime(kind, before.count + count, before.total_ms + total_ms)
    return sorted(spent.values(), key=lambda operator: -operator.total_ms)


@dataclass(frozen=True)
class PerfLog:
    """Values of an `onnxruntime_perf_test` log, in milliseconds; None if missing."""

    load_ms: float | None = None
    first_ms: float | None = None


@dataclass(frozen=True)
class PerfResult:
    """Values of its result file: nanoseconds of each run in order, and peak resident bytes."""

    raw_ns: list[int]
    peak_bytes: int | None


def read_perf_log(text: str) -> PerfLog:
    """Parse times of loading and of the first inference, which its result file lacks."""
    creation, first = _CREATION.search(text), _FIRST.search(text)
    return PerfLog(
        load_ms=None if creation is None else float(creation.group(1)) * 1e3,
        first_ms=None if first is None else float(first.group(1)),
    )


def read_perf_result(text: str) -> PerfResult:
    """Parse a result file, one line per run."""
    lines = [match for line in text.splitlines() if (match := _RESULT.fullmatch(line.strip()))]
    peaks = [int(match.group(2)) for match in lines]
    return PerfResult(
        raw_ns=[round(float(match.group(1)) * 1e9) for match in lines],
        peak_bytes=max(peaks, default=0) or None,
    )
