"""Order statistics and bootstrap intervals over blocks of timed runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Interval = tuple[float, float]
# Round -> durations in nanoseconds. Runs of one block resemble each other more than runs of
# different blocks do, so rounds are what is resampled, never single runs.
Blocks = Mapping[int, Array]

# Rounds that models spent in the same processes.
Parts = Sequence[Sequence[int]]

RESAMPLES = 2000
_MIN_PARTS = 3
# With fewer rounds an interval would promise more than they can tell.
MIN_ROUNDS = 5
P99_MIN_RUNS = 100
_WEIGHTS_AT_ONCE = 1 << 22


def pooled(blocks: Blocks) -> Array:
    """All durations in the order of their rounds, shape (n,)."""
    return np.concatenate([blocks[number] for number in sorted(blocks)])


def median_deviation(values: Array) -> float:
    """Median absolute deviation from the median, not scaled."""
    return float(np.median(np.abs(values - np.median(values))))


def drift(values: Array) -> float | None:
    """Median of the last quarter / median of the first quarter - 1; None under 8 values."""
    quarter = len(values) // 4
    if quarter < 2:
        return None
    return float(np.median(values[-quarter:]) / np.median(values[:quarter])) - 1


def early_stopping(
    values: Array, *, percentile: float = 0.9, confidence: float = 0.99
) -> float | None:
    """MLPerf's early-stopping estimate of a percentile; None when there are too few values.

    The n values are Bernoulli trials "slower than the percentile" with chance 1 - percentile. With
    t the largest count for which P(Binomial(n, 1 - percentile) <= t) <= 1 - confidence, the
    estimate is the t-th largest value (MLPerf Inference rules, appendix "Early Stopping").
    """
    from scipy.special import bdtr

    n = len(values)
    counts = np.arange(1, max(2, n))
    enough = bdtr(counts, n, 1 - percentile) <= 1 - confidence
    if n < 2 or not enough[0]:
        return None
    discarded = int(counts[enough][-1])
    return float(np.sort(values)[n - discarded])


def median_interval(
    blocks: Blocks, *, seed: int, resamples: int = RESAMPLES, parts: Parts = ()
) -> Interval | None:
    """95 % percentile-bootstrap interval of the median over rounds; None with too few rounds.

    parts: as in `ratio`.
    """
    if len(blocks) < MIN_ROUNDS:
        return None
    weights = _draws(len(blocks), seed=seed, resamples=resamples)
    found = _interval(_weighted_medians(blocks, sorted(blocks), weights))
    medians = [_median(blocks, part) for part in parts if set(part) & set(blocks)]
    return widened(found, float(np.median(pooled(blocks))), medians)


def ratio(
    reference: Blocks,
    candidate: Blocks,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    parts: Parts = (),
) -> tuple[float, Interval | None] | None:
    """Median of `reference` / median of `candidate`, and its 95 % interval.

    Only rounds that hold both count: there both saw the same state of the machine. The same rounds
    are drawn for both, so that what slowed both down cancels. None without a common round; the
    interval is None with too few.
    parts: rounds that shared a pair of processes. Runs of one process have its luck in common, so
    where there are several the interval is at least as wide as what their ratios tell.
    """
    found = _paired(reference, candidate, seed=seed, resamples=resamples)
    if found is None:
        return None
    value, drawn = found
    if drawn is None:
        return value, None
    common = set(reference) & set(candidate)
    shared = [common & set(part) for part in parts]
    ratios = [_median(reference, part) / _median(candidate, part) for part in shared if part]
    return value, widened(_interval(drawn), value, ratios)


def _paired(
    reference: Blocks, candidate: Blocks, *, seed: int, resamples: int
) -> tuple[float, Array | None] | None:
    """The ratio of medians over common rounds, and that of each resample; None as in `ratio`."""
    common = sorted(set(reference) & set(candidate))
    if not common:
        return None
    once = np.ones((1, len(common)), np.int64)
    value = _weighted_medians(reference, common, once) / _weighted_medians(candidate, common, once)
    if len(common) < MIN_ROUNDS:
        return float(value[0]), None
    weights = _draws(len(common), seed=seed, resamples=resamples)
    above = _weighted_medians(reference, common, weights)
    below = _weighted_medians(candidate, common, weights)
    return float(value[0]), above / below


def widened(interval: Interval, value: float, parts: Sequence[float]) -> Interval:
    """An interval around a value, at least as wide as that of the mean of its parts.

    That one is Student's 95 % interval of the mean logarithm, whose half width is laid around
    `value`; it takes three parts, which few are enough for since Student's quantile knows it.
    """
    if len(parts) < _MIN_PARTS:
        return interval
    from scipy.special import stdtrit

    logs = np.log(parts)
    error = float(logs.std(ddof=1)) / np.sqrt(len(logs))
    half = float(stdtrit(len(logs) - 1, 0.975)) * error
    return min(interval[0], value * np.exp(-half)), max(interval[1], value * np.exp(half))


def _median(blocks: Blocks, rounds: Iterable[int]) -> float:
    return float(np.median(np.concatenate([blocks[n] for n in rounds if n in blocks])))


def unpaired_ratio(
    reference: Blocks, candidate: Blocks, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, Interval | None] | None:
    """As `ratio`, of two runs that share no rounds: each is resampled on its own.

    The interval holds what varied within the runs; what differed between them it cannot know.
    """
    if not reference or not candidate:
        return None
    value = float(np.median(pooled(reference)) / np.median(pooled(candidate)))
    if min(len(reference), len(candidate)) < MIN_ROUNDS:
        return value, None
    medians = [
        _weighted_medians(
            blocks, sorted(blocks), _draws(len(blocks), seed=seed + side, resamples=resamples)
        )
        for side, blocks in enumerate((reference, candidate))
    ]
    return value, _interval(medians[0] / medians[1])


def ratio_of_ratios(
    before: tuple[Blocks, Blocks],
    after: tuple[Blocks, Blocks],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval | None] | None:
    """How many times faster `after` is than `before`, each relative to a model timed beside it.

    before, after: (reference, candidate) of one run each, the reference the same model in both.
    The value is (reference / candidate) of `after` over that of `before`, medians each. Rounds are
    drawn in pairs within a run, so what slowed down all of a run's models cancels. None where a run
    has no common round; the interval is None with too few.
    """
    sides = [
        _paired(reference, candidate, seed=seed + side, resamples=resamples)
        for side, (reference, candidate) in enumerate((before, after))
    ]
    if sides[0] is None or sides[1] is None:
        return None
    (value, drawn), (value_after, drawn_after) = sides[0], sides[1]
    if drawn is None or drawn_after is None:
        return value_after / value, None
    return value_after / value, _interval(drawn_after / drawn)


def chance(value: float, interval: Interval, rounds: int, *, margin: float = 0.0) -> float:
    """Two-sided p-value of a ratio being 1, from its 95 % interval over so many rounds.

    margin: of being between 1 / (1 + margin) and 1 + margin, rather than exactly 1.
    The logarithm's standard error is the interval's length over twice the 97.5 % quantile of the
    normal distribution; few rounds are allowed for by Student's t with `rounds` - 1 degrees.
    """
    from scipy.special import stdtr

    error = float(np.log(interval[1] / interval[0])) / (2 * 1.959964)
    beyond = float(abs(np.log(value)) - np.log1p(margin))
    if beyond <= 0:
        return 1.0
    return float(2 * stdtr(max(1, rounds - 1), -beyond / error)) if error else 0.0


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for there being several, in their order (Holm 1979, step-down)."""
    adjusted, most = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        most = max(most, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = most
    return adjusted


def _draws(rounds: int, *, seed: int, resamples: int) -> Array:
    """How often each round is drawn in each resample, shape (resamples, rounds)."""
    chances = np.full(rounds, 1 / rounds)
    return np.random.default_rng(seed).multinomial(rounds, chances, size=resamples)


def _weighted_medians(blocks: Blocks, rounds: list[int], weights: Array) -> Array:
    """Median of all runs, each round counted `weights[:, i]` times; shape (resamples,)."""
    values = np.concatenate([blocks[number] for number in rounds])
    owners = np.repeat(np.arange(len(rounds)), [len(blocks[number]) for number in rounds])
    order = np.argsort(values, kind="stable")
    values, owners = values[order].astype(np.float64), owners[order]
    step = max(1, _WEIGHTS_AT_ONCE // len(values))
    medians = [
        _medians_of_sorted(values, weights[start : start + step][:, owners])
        for start in range(0, len(weights), step)
    ]
    return np.concatenate(medians)


def _medians_of_sorted(values: Array, counts: Array) -> Array:
    """Medians of sorted values, each repeated `counts[:, i]` times."""
    reached = np.cumsum(counts, axis=1)
    total = reached[:, -1:]
    lower = (reached <= (total - 1) // 2).sum(axis=1)
    upper = (reached <= total // 2).sum(axis=1)
    result: Array = (values[lower] + values[upper]) / 2
    return result


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
