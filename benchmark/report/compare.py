"""`edge compare`: significant differences between two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from benchmark import statistics
from benchmark.contradictions import SHARES
from benchmark.keys import Key, baselines_beside, place_key, setting_of
from benchmark.ratios import blocks_of
from benchmark.report.labels import Labels, device_of
from benchmark.report.summary import is_rankable, p50_of
from benchmark.schema import Interval, Row
from benchmark.titles import baseline_title, engine_title
from edge.config import Config

Verdict = Literal["faster", "slower", "indistinguishable", "unknown"]
# Family-wise error rate: probability of calling any pair different if none is.
LEVEL = 0.05
# Two processes of one artifact differ by about 1 %, by their memory layout. Intervals of two runs
# do not cover that, so a difference has to be larger than this share.
MARGIN = 0.02
_CHANCE_Z = 1.959964


class Change(Config):
    """A figure of both runs; None if a run has no such figure."""

    a: float | None
    b: float | None


class MetricChange(Change):
    """The metric of both runs. error: standard error of b - a, if the metric is a share of rows.

    within_chance: True if |b - a| is at most 1.96 standard errors; None without a standard error.
    """

    metric: str
    error: float | None = None
    within_chance: bool | None = None


class Pair(Config):
    """The same model at the same setting in both runs; verdict: of the second, `b`.

    ratio: p50 of a / p50 of b, above 1 where b is faster; ci95: its interval.
    chance: p-value of the ratio being 1 within the margin, corrected for the number of pairs
    (Holm).
    through: the baseline of both ratios; None if the runs share none, so that the ratio includes
    differences of the machine's state. why: reason for an unknown verdict.
    """

    name: str
    device: str
    role: str
    p50_ms: Change
    ratio: float | None = None
    ci95: Interval | None = None
    chance: float | None = None
    verdict: Verdict = "unknown"
    through: str | None = None
    why: str | None = None
    size_bytes: Change
    memory_mb: Change
    instructions: Change
    metric: MetricChange | None = None


class RunComparison(Config):
    """Pairs of rows of two runs, and names of rows that only one run has.

    margin: differences up to this share are expected between two runs of one artifact.
    """

    margin: float
    pairs: tuple[Pair, ...]
    baselines: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def slower(self) -> tuple[Pair, ...]:
        """Pairs in which the second run is significantly slower."""
        return tuple(pair for pair in self.pairs if pair.verdict == "slower")


def compare_runs(
    a: Sequence[Row], b: Sequence[Row], *, margin: float = MARGIN, seed: int = 0
) -> RunComparison:
    """Match the rows of two runs and compare each pair.

    A pair has the same format, precision, target, engine, threads, length, batch, padding and
    device model; among several such rows the model's name decides, then the later one counts.
    """
    labels = Labels([*a, *b])
    matched, only_a, only_b = _matched(a, b)
    pairs = [_pair(row_a, row_b, a, b, labels, margin, seed) for row_a, row_b in matched]
    artifacts = [pair for pair in pairs if pair.role != "baseline"]
    return RunComparison(
        margin=margin,
        pairs=_with_verdicts(artifacts, margin),
        baselines=tuple(pair for pair in pairs if pair.role == "baseline"),
        only_a=tuple(labels.full(row) for row in only_a),
        only_b=tuple(labels.full(row) for row in only_b),
    )


def _matched(
    a: Sequence[Row], b: Sequence[Row]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Return the pairs, and the unmatched rows of each run."""
    groups_a, groups_b = _grouped(a), _grouped(b)
    pairs: list[tuple[Row, Row]] = []
    only_a: list[Row] = []
    only_b: list[Row] = []
    for key in dict.fromkeys([*groups_a, *groups_b]):
        rows_a, rows_b = groups_a.get(key, {}), groups_b.get(key, {})
        names = _names_of_pairs(list(rows_a), list(rows_b))
        pairs += [(rows_a[name_a], rows_b[name_b]) for name_a, name_b in names.items()]
        only_a += [row for name, row in rows_a.items() if name not in names]
        only_b += [row for name, row in rows_b.items() if name not in names.values()]
    return pairs, only_a, only_b


def _names_of_pairs(keys_a: Sequence[Key], keys_b: Sequence[Key]) -> dict[Key, Key]:
    """Match keys (model name, device key) of rows that agree otherwise."""
    if len(keys_a) == len(keys_b) == 1:
        return {keys_a[0]: keys_b[0]}
    pairs = {name: name for name in keys_a if name in keys_b}
    for name in keys_a:
        # The same model on the same kind of device at another address, if there is one each.
        same = [[other for other in side if other[0] == name[0]] for side in (keys_a, keys_b)]
        if len(same[0]) == len(same[1]) == 1:
            pairs[name] = same[1][0]
    return pairs


def _grouped(rows: Sequence[Row]) -> dict[Key, dict[Key, Row]]:
    """Group rows by the keys that a pair shares; each group: model name, device -> latest row."""
    groups: dict[Key, dict[Key, Row]] = {}
    for row in sorted(rows, key=lambda row: row.started_utc):
        model = row.model
        kind = (row.role, model.format, model.precision, model.target, row.runtime.name)
        # Two different baselines are never a pair, whatever their format.
        name = row.model.id if row.role == "baseline" else ""
        key = (*kind, name, *setting_of(row), row.device.kind, row.device.model)
        groups.setdefault(key, {})[row.model.id, place_key(row)] = row
    return groups


def _pair(
    a: Row,
    b: Row,
    run_a: Sequence[Row],
    run_b: Sequence[Row],
    labels: Labels,
    margin: float,
    seed: int,
) -> Pair:
    basis = None if b.role == "baseline" else _common_baseline(a, b, run_a, run_b)
    known = is_rankable(a) and is_rankable(b)
    pair = Pair(
        name=_name(a, b, labels),
        device=device_of(b),
        role=b.role,
        p50_ms=Change(a=p50_of(a) if known else None, b=p50_of(b) if known else None),
        size_bytes=Change(a=a.model.bytes, b=b.model.bytes),
        memory_mb=Change(a=_memory(a), b=_memory(b)),
        instructions=Change(a=a.instructions, b=b.instructions),
        metric=_metric(a, b),
        through=None if basis is None else _basis_words(basis[0]),
        why=_incomparable_reason(a, b),
    )
    estimate = None if pair.why else _ratio(a, b, basis, seed)
    if estimate is None:
        return pair
    value, interval, rounds = estimate
    changes = {"ratio": value, "ci95": interval}
    if interval is None:
        return pair.model_copy(update={**changes, "why": "too few rounds for an interval"})
    chance = statistics.chance(value, interval, rounds, margin=margin)
    return pair.model_copy(update={**changes, "chance": chance})


def _name(a: Row, b: Row, labels: Labels) -> str:
    name = labels.full(b)
    return name if a.model.id == b.model.id else f"{name} (was {a.model.id})"


def _incomparable_reason(a: Row, b: Row) -> str | None:
    """Return the reason for not comparing the latencies of two rows, or None."""
    for row in (a, b):
        if row.device.kind != "real":
            return f"the processor is {row.device.kind}"
        if row.latency_ms is None:
            return "not timed in both runs"
    invalid = [row for row in (a, b) if row.validity.status == "invalid"]
    if invalid:
        return f"its latency is invalid: {invalid[0].validity.reasons[0]}"
    if any(row.latency_ms is None or not row.latency_ms.blocks for row in (a, b)):
        return "the runs were not recorded one by one"
    return None


def _common_baseline(
    a: Row, b: Row, run_a: Sequence[Row], run_b: Sequence[Row]
) -> tuple[Row, Row] | None:
    """Return a baseline of both runs, timed beside each row, preferably in the same engine."""
    for baseline_a in sorted(
        _baselines_of(a, run_a), key=lambda row: row.runtime.name != a.runtime.name
    ):
        for baseline_b in _baselines_of(b, run_b):
            if baseline_a.model.sha256 is not None and _same_model(baseline_a, baseline_b):
                return baseline_a, baseline_b
    return None


def _baselines_of(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Return baselines of the same run at the same setting, with recorded runs."""
    return [other for other in baselines_beside(row, rows) if blocks_of(other)]


def _same_model(a: Row, b: Row) -> bool:
    def identity(row: Row) -> tuple[object, ...]:
        return (row.model.sha256, row.model.arch, row.runtime.name)

    return identity(a) == identity(b)


def _basis_words(row: Row) -> str:
    return f"{baseline_title(row.model.id)} in {engine_title(row.runtime.name)}"


def _ratio(
    a: Row, b: Row, basis: tuple[Row, Row] | None, seed: int
) -> tuple[float, Interval | None, int] | None:
    """Return ratio, interval, and the number of rounds of the shorter run."""
    blocks_a, blocks_b = blocks_of(a), blocks_of(b)
    rounds = min(len(blocks_a), len(blocks_b))
    if basis is None:
        estimate = statistics.unpaired_ratio(blocks_a, blocks_b, seed=seed)
    else:
        before, after = (blocks_of(basis[0]), blocks_a), (blocks_of(basis[1]), blocks_b)
        estimate = statistics.ratio_of_ratios(before, after, seed=seed)
    return None if estimate is None else (*estimate, rounds)


def _with_verdicts(pairs: Sequence[Pair], margin: float) -> tuple[Pair, ...]:
    """Return the pairs with corrected p-values and verdicts."""
    places = [place for place, pair in enumerate(pairs) if pair.chance is not None]
    adjusted = statistics.holm([pairs[place].chance or 0.0 for place in places])
    results = list(pairs)
    for place, chance in zip(places, adjusted, strict=True):
        changes = {"chance": chance, "verdict": _verdict(pairs[place], chance, margin)}
        results[place] = pairs[place].model_copy(update=changes)
    return tuple(results)


def _verdict(pair: Pair, chance: float, margin: float) -> Verdict:
    if pair.ratio is None or pair.ci95 is None:
        return "unknown"
    low, high = pair.ci95
    if chance >= LEVEL or (low <= 1 + margin and high >= 1 / (1 + margin)):
        return "indistinguishable"
    return "faster" if pair.ratio > 1 else "slower"


def _memory(row: Row) -> float | None:
    return None if row.memory is None else row.memory.delta_mb


def _metric(a: Row, b: Row) -> MetricChange | None:
    """Return both metrics; for shares with the binomial standard error of the difference.

    It assumes independent samples: if both runs evaluated the same rows, the true error is smaller.
    """
    before, after = a.accuracy, b.accuracy
    if before is None or after is None or before.metric != after.metric:
        return None
    error = within = None
    if before.metric.lower() in SHARES and before.samples and after.samples:
        error = math.sqrt(
            before.value * (1 - before.value) / before.samples
            + after.value * (1 - after.value) / after.samples
        )
        within = abs(after.value - before.value) <= _CHANCE_Z * error
    return MetricChange(
        metric=before.metric, a=before.value, b=after.value, error=error, within_chance=within
    )
