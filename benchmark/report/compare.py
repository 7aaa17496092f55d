"""`edge compare`: which differences between two runs are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from benchmark import statistics
from benchmark.contradictions import SHARES
from benchmark.keys import Key, baselines_beside, place_key, setting_of
from benchmark.ratios import blocks_of
from benchmark.report.labels import Labels, device_of
from benchmark.report.summary import p50_of, rated
from benchmark.schema import Interval, Row
from benchmark.titles import baseline_title, engine_title
from edge.config import Config

Verdict = Literal["faster", "slower", "indistinguishable", "unknown"]
# Chance of calling any of the pairs different when none is.
LEVEL = 0.05
# Two processes of one artifact differ by about 1 %: their memory lies elsewhere. No interval of two
# runs knows of that, so a difference has to be larger than this, as a share.
MARGIN = 0.02
_CHANCE_Z = 1.959964


class Change(Config):
    """A figure of both runs; None where a run does not know it."""

    a: float | None
    b: float | None


class MetricChange(Change):
    """The metric of both. error: standard error of b - a, where it is a share of so many rows.

    within_chance: whether |b - a| is below 1.96 errors; None where the error is not known.
    """

    metric: str
    error: float | None = None
    within_chance: bool | None = None


class Pair(Config):
    """The same model at the same setting in both runs; verdict: of the second, `b`.

    ratio: p50 of a / p50 of b, above 1 where b is faster; ci95: its interval.
    chance: p-value of the ratio being 1 give or take the margin, corrected for the number of pairs
    (Holm).
    through: the baseline that both ratios were taken of; None where the runs share none, so that
    whatever the machine did differently is in the ratio too. why: of an unknown verdict.
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
    """What two runs have in common, and what only one of them has, in words.

    margin: differences up to this share are what one artifact differs by from itself.
    """

    margin: float
    pairs: tuple[Pair, ...]
    baselines: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def slower(self) -> tuple[Pair, ...]:
        """The pairs whose second is really slower."""
        return tuple(pair for pair in self.pairs if pair.verdict == "slower")


def compare_runs(
    a: Sequence[Row], b: Sequence[Row], *, margin: float = MARGIN, seed: int = 0
) -> RunComparison:
    """Match the rows of two runs and judge each pair.

    A pair has the same format, precision, target, engine, threads, length, batch, padding and
    device model; among several such rows the model's name decides, then the later one counts.
    """
    labels = Labels([*a, *b])
    matched, only_a, only_b = _matched(a, b)
    pairs = [_pair(one, other, a, b, labels, margin, seed) for one, other in matched]
    own = [pair for pair in pairs if pair.role != "baseline"]
    return RunComparison(
        margin=margin,
        pairs=_judged(own, margin),
        baselines=tuple(pair for pair in pairs if pair.role == "baseline"),
        only_a=tuple(labels.full(row) for row in only_a),
        only_b=tuple(labels.full(row) for row in only_b),
    )


def _matched(
    a: Sequence[Row], b: Sequence[Row]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Pairs, and what is left of each run."""
    groups_a, groups_b = _grouped(a), _grouped(b)
    pairs: list[tuple[Row, Row]] = []
    only_a: list[Row] = []
    only_b: list[Row] = []
    for key in dict.fromkeys([*groups_a, *groups_b]):
        left, right = groups_a.get(key, {}), groups_b.get(key, {})
        names = _names_of_pairs(list(left), list(right))
        pairs += [(left[one], right[other]) for one, other in names.items()]
        only_a += [row for name, row in left.items() if name not in names]
        only_b += [row for name, row in right.items() if name not in names.values()]
    return pairs, only_a, only_b


def _names_of_pairs(left: Sequence[Key], right: Sequence[Key]) -> dict[Key, Key]:
    """Of rows that agree otherwise, who belongs to whom by (name of the model, place)."""
    if len(left) == len(right) == 1:
        return {left[0]: right[0]}
    pairs = {name: name for name in left if name in right}
    for name in left:
        # The same model on the same kind of device at another address, if there is one each.
        same = [[other for other in side if other[0] == name[0]] for side in (left, right)]
        if len(same[0]) == len(same[1]) == 1:
            pairs[name] = same[1][0]
    return pairs


def _grouped(rows: Sequence[Row]) -> dict[Key, dict[Key, Row]]:
    """What has to agree -> name of the model and place -> its latest row."""
    found: dict[Key, dict[Key, Row]] = {}
    for row in sorted(rows, key=lambda row: row.started_utc):
        model = row.model
        kind = (row.role, model.format, model.precision, model.target, row.runtime.name)
        # Another baseline is another thing, whatever its format.
        name = row.model.id if row.role == "baseline" else ""
        key = (*kind, name, *setting_of(row), row.device.kind, row.device.model)
        found.setdefault(key, {})[row.model.id, place_key(row)] = row
    return found


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
    known = rated(a) and rated(b)
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
        why=_untold(a, b),
    )
    found = None if pair.why else _ratio(a, b, basis, seed)
    if found is None:
        return pair
    value, interval, rounds = found
    changes = {"ratio": value, "ci95": interval}
    if interval is None:
        return pair.model_copy(update={**changes, "why": "too few rounds for an interval"})
    chance = statistics.chance(value, interval, rounds, margin=margin)
    return pair.model_copy(update={**changes, "chance": chance})


def _name(a: Row, b: Row, labels: Labels) -> str:
    name = labels.full(b)
    return name if a.model.id == b.model.id else f"{name} (was {a.model.id})"


def _untold(a: Row, b: Row) -> str | None:
    """Why the latencies of two rows cannot be judged."""
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
    """A baseline of both runs, timed beside each row: in the same engine where there is one."""
    for one in sorted(_beside(a, run_a), key=lambda row: row.runtime.name != a.runtime.name):
        for other in _beside(b, run_b):
            if one.model.sha256 is not None and _same_model(one, other):
                return one, other
    return None


def _beside(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Baselines of the same run at the same setting, with recorded runs."""
    return [other for other in baselines_beside(row, rows) if blocks_of(other)]


def _same_model(one: Row, other: Row) -> bool:
    def identity(row: Row) -> tuple[object, ...]:
        return (row.model.sha256, row.model.arch, row.runtime.name)

    return identity(one) == identity(other)


def _basis_words(row: Row) -> str:
    return f"{baseline_title(row.model.id)} in {engine_title(row.runtime.name)}"


def _ratio(
    a: Row, b: Row, basis: tuple[Row, Row] | None, seed: int
) -> tuple[float, Interval | None, int] | None:
    """Ratio, interval, and the number of rounds of the shorter run."""
    blocks_a, blocks_b = blocks_of(a), blocks_of(b)
    rounds = min(len(blocks_a), len(blocks_b))
    if basis is None:
        found = statistics.unpaired_ratio(blocks_a, blocks_b, seed=seed)
    else:
        before, after = (blocks_of(basis[0]), blocks_a), (blocks_of(basis[1]), blocks_b)
        found = statistics.ratio_of_ratios(before, after, seed=seed)
    return None if found is None else (*found, rounds)


def _judged(pairs: Sequence[Pair], margin: float) -> tuple[Pair, ...]:
    """With p-values corrected for their number, and verdicts."""
    places = [place for place, pair in enumerate(pairs) if pair.chance is not None]
    adjusted = statistics.holm([pairs[place].chance or 0.0 for place in places])
    found = list(pairs)
    for place, chance in zip(places, adjusted, strict=True):
        changes = {"chance": chance, "verdict": _verdict(pairs[place], chance, margin)}
        found[place] = pairs[place].model_copy(update=changes)
    return tuple(found)


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
    """Both metrics; of shares the binomial standard error of the difference.

    The runs may have answered the same rows, so that the true error is smaller: errors of two
    samples that are independent are the cautious choice.
    """
    one, other = a.accuracy, b.accuracy
    if one is None or other is None or one.metric != other.metric:
        return None
    error = within = None
    if one.metric.lower() in SHARES and one.samples and other.samples:
        error = math.sqrt(
            one.value * (1 - one.value) / one.samples
            + other.value * (1 - other.value) / other.samples
        )
        within = abs(other.value - one.value) <= _CHANCE_Z * error
    return MetricChange(
        metric=one.metric, a=one.value, b=other.value, error=error, within_chance=within
    )
