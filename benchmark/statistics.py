"""Order statistics and bootstrap intervals over blocks of timed runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Interval = tuple[float, float]
# Round -> durations in nanoseconds. Runs of one block resemble each other more than runs of
# different blocks do, so rounds are what is resampled, never single runs.
Blocks = Mapping[int, Array]

# Rounds that ran in the same processes.
Parts = Sequence[Sequence[int]]

RESAMPLES = 2000
_MIN_PARTS = 3
# With fewer rounds an interval would be too narrow.
MIN_ROUNDS = 5
P99_MIN_RUNS = 100


def pooled(blocks: Blocks) -> Array:
    """Return all durations in the order of their rounds, shape (n,)."""
    return np.concatenate([blocks[number] for number in sorted(blocks)])


def median_deviation(values: Array) -> float:
    """Return the median absolute deviation from the median, not scaled."""
    return float(np.median(np.abs(values - np.median(values))))


def drift(values: Array) -> float | None:
    """Return median of the last quarter / median of the first - 1; None under 8 values."""
    quarter = len(values) // 4
    if quarter < 2:
        return None
    return float(np.median(values[-quarter:]) / np.median(values[:quarter])) - 1


def early_stopping(
    values: Array, *, percentile: float = 0.9, confidence: float = 0.99
) -> float | None:
    """Return MLPerf's early-stopping estimate of a percentile; None with too few values.

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
    """Return the 95 % percentile-bootstrap interval of the median over rounds.

    parts: as in `ratio`. None with too few rounds.
    """
    if len(blocks) < MIN_ROUNDS:
        return None
    weights = _draws(len(blocks), seed=seed, resamples=resamples)
    median = float(np.median(pooled(blocks)))
    interval = _hull(median, _interval(_weighted_medians(blocks, sorted(blocks), weights)))
    medians = [_median(blocks, part) for part in parts if set(part) & set(blocks)]
    return widened(interval, median, medians)


def ratio(
    reference: Blocks,
    candidate: Blocks,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    parts: Parts = (),
) -> tuple[float, Interval | None] | None:
    """Return median of `reference` / median of `candidate`, over all runs, and its 95 % interval.

    The interval holds the ratio. Rounds are resampled: common rounds in pairs, so that a slow-down
    of both cancels, the others separately. If one of both skipped rounds, the interval also covers
    the ratio over the common rounds, for only there both ran in the same state of the machine.
    None without a common round; the interval is None with too few.
    parts: rounds that shared a pair of processes. Runs of one process are correlated, so with
    several parts the interval is at least as wide as the interval of the parts' mean ratio.
    """
    if not set(reference) & set(candidate):
        return None
    quotient = _quotient(reference, candidate, seed=seed, resamples=resamples)
    if quotient.draws is None:
        return quotient.value, None
    shared = [part for part in parts if set(part) & set(reference) and set(part) & set(candidate)]
    ratios = [_median(reference, part) / _median(candidate, part) for part in shared]
    interval = _hull(quotient.value, *map(_interval, quotient.draws))
    return quotient.value, widened(interval, quotient.value, ratios)


@dataclass(frozen=True)
class _Quotient:
    """A ratio of medians; draws: the ratio of each resample, None with too few rounds.

    draws[0] is over all rounds, draws[1] over the common rounds; they are equal if there are too
    few common rounds, or no others.
    """

    value: float
    draws: tuple[Array, Array] | None = None


def _quotient(reference: Blocks, candidate: Blocks, *, seed: int, resamples: int) -> _Quotient:
    """Return the ratio of two sides that have at least one round each."""
    value = float(np.median(pooled(reference)) / np.median(pooled(candidate)))
    if min(len(reference), len(candidate)) < MIN_ROUNDS:
        return _Quotient(value)
    common = sorted(set(reference) & set(candidate))
    drawn = _draws(len(common), seed=seed, resamples=resamples) if common else None
    medians = [
        _resampled_medians(blocks, common, drawn, seed=(seed, side), resamples=resamples)
        for side, blocks in enumerate((reference, candidate), 1)
    ]
    draws = medians[0] / medians[1]
    everywhere = len(common) == len(reference) == len(candidate)
    if drawn is None or len(common) < MIN_ROUNDS or everywhere:
        return _Quotient(value, (draws, draws))
    above = _weighted_medians(reference, common, drawn)
    below = _weighted_medians(candidate, common, drawn)
    return _Quotient(value, (draws, above / below))


def _resampled_medians(
    blocks: Blocks, common: list[int], drawn: Array | None, *, seed: Sequence[int], resamples: int
) -> Array:
    """Return the median of each resample: common rounds by `drawn`, the others drawn here."""
    rest = sorted(set(blocks) - set(common))
    weights = [] if drawn is None else [drawn]
    if rest:
        weights.append(_draws(len(rest), seed=seed, resamples=resamples))
    return _weighted_medians(blocks, [*common, *rest], np.concatenate(weights, axis=1))


def _hull(value: float, *intervals: Interval) -> Interval:
    """Return the smallest interval that contains a value and some intervals."""
    lows, highs = zip(*intervals, strict=True)
    return min(value, *lows), max(value, *highs)


def widened(interval: Interval, value: float, parts: Sequence[float]) -> Interval:
    """Return an interval around a value, at least as wide as that of the mean of its parts.

    The latter is Student's 95 % interval of the mean logarithm, centered on `value`; it needs at
    least three parts.
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
    """Return the ratio as `ratio` does, of two runs that share no rounds.

    Each run is resampled separately. The interval covers variation within the runs, not a
    difference of the machine's state between them.
    """
    if not reference or not candidate:
        return None
    # A number below zero is a round of the other run, which shares nothing with its namesake.
    apart = {-1 - number: values for number, values in candidate.items()}
    quotient = _quotient(reference, apart, seed=seed, resamples=resamples)
    if quotient.draws is None:
        return quotient.value, None
    return quotient.value, _hull(quotient.value, *map(_interval, quotient.draws))


def ratio_of_ratios(
    before: tuple[Blocks, Blocks],
    after: tuple[Blocks, Blocks],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval | None] | None:
    """Return the speed-up of `after` over `before`, each relative to a model timed beside it.

    before, after: (reference, candidate) of one run each, the reference the same model in both.
    The value is (reference / candidate) of `after` over that of `before`, medians each. Intervals
    and what is None as in `ratio`: what slowed down all of a run's models cancels.
    """
    if not all(set(reference) & set(candidate) for reference, candidate in (before, after)):
        return None
    old, new = (
        _quotient(reference, candidate, seed=seed + side, resamples=resamples)
        for side, (reference, candidate) in enumerate((before, after))
    )
    value = new.value / old.value
    if old.draws is None or new.draws is None:
        return value, None
    pairs = zip(old.draws, new.draws, strict=True)
    return value, _hull(value, *(_interval(later / earlier) for earlier, later in pairs))


def chance(value: float, interval: Interval, rounds: int, *, margin: float = 0.0) -> float:
    """Return the two-sided p-value of a ratio being 1, from its 95 % interval over `rounds`.

    margin: test for a ratio between 1 / (1 + margin) and 1 + margin instead of exactly 1.
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
    """Return p-values corrected for multiple tests, in their order (Holm 1979, step-down)."""
    adjusted, most = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        most = max(most, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = most
    return adjusted


def _draws(rounds: int, *, seed: int | Sequence[int], resamples: int) -> Array:
    """Draw bootstrap counts of each round, shape (resamples, rounds)."""
    chances = np.full(rounds, 1 / rounds)
    return np.random.default_rng(seed).multinomial(rounds, chances, size=resamples)


def _weighted_medians(blocks: Blocks, rounds: list[int], weights: Array) -> Array:
    """Return the median of all runs, round i counted `weights[:, i]` times; shape (resamples,)."""
    values = np.concatenate([blocks[number] for number in rounds])
    owners = np.repeat(np.arange(len(rounds)), [len(blocks[number]) for number in rounds])
    order = np.argsort(values, kind="stable")
    return _Ranks(values[order].astype(np.float64), owners[order], weights).medians()


class _Ranks:
    """Sorted values (N,), those of owner i counted `weights[:, i]` times in each of R resamples.

    Where a rank falls is sought among stretches of sqrt(N) values first, then within one: the
    counts of all values in all resamples, N x R, are never needed.
    """

    def __init__(self, values: Array, owners: Array, weights: Array) -> None:
        self._values, self._owners = values, owners
        self._weights = weights.astype(np.float64)
        self._width = math.isqrt(len(values))
        self._starts = np.arange(0, len(values), self._width)
        stretches = np.arange(len(values)) // self._width
        stretch_counts = np.zeros((len(self._starts), weights.shape[1]))
        np.add.at(stretch_counts, (stretches, owners), 1)
        # Counted up to the start of each stretch, and to the end of the last: (R, stretches + 1).
        reached = np.cumsum(self._weights @ stretch_counts.T, axis=1)
        self._reached = np.pad(reached, ((0, 0), (1, 0)))

    def medians(self) -> Array:
        """Return the median of each resample, (R,)."""
        total = self._reached[:, -1]
        result: Array = (self._at((total - 1) // 2) + self._at(total // 2)) / 2
        return result

    def _at(self, ranks: Array) -> Array:
        """Return the value at a rank, from 0 on, in each resample, (R,)."""
        rows = np.arange(len(ranks))
        stretches = (self._reached[:, 1:] <= ranks[:, None]).sum(axis=1)
        places = self._starts[stretches][:, None] + np.arange(self._width)
        places = np.minimum(places, len(self._values) - 1)
        counts = np.cumsum(self._weights[rows[:, None], self._owners[places]], axis=1)
        passed = self._reached[rows, stretches][:, None] + counts <= ranks[:, None]
        medians: Array = self._values[self._starts[stretches] + passed.sum(axis=1)]
        return medians


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
