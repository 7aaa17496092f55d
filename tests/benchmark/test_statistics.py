"""Figures against hand-computed values, intervals against simulations with a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark import statistics
from benchmark.devices import Loaded, Turn, Warmed
from benchmark.measure.rows import latency_of
from benchmark.measure.sampler import Samples


def _samples(*blocks: list[int]) -> Samples:
    found = Samples(Loaded(load_ms=5.0, first_ms=2.0), Warmed(3, 0.1))
    for number, block in enumerate(blocks):
        found.add(number, Turn(block, duration_s=1.0))
    return found


def test_latency_figures_of_eleven_runs() -> None:
    # 10 to 110 ms in steps of 10, in two blocks.
    values = [1_000_000 * v for v in range(10, 120, 10)]
    found = latency_of(_samples(values[:5], values[5:]), seed=0)
    assert (found.n, found.mean, found.min, found.max) == (11, 60.0, 10.0, 110.0)
    # Linear interpolation: rank 0.9 * 10 = 9 is the tenth value, 0.95 * 10 = 9.5 between two.
    assert (found.p50, found.p90, found.p95) == (60.0, 100.0, 105.0)
    # Deviations from 60: 50 40 30 20 10 0 10 20 30 40 50, their median is 30.
    assert found.mad == 30.0
    assert found.raw_ns == tuple(values)
    assert found.blocks == ((0, 5), (1, 6))
    assert (found.load, found.first) == (5.0, 2.0)


def test_p99_needs_a_hundred_runs() -> None:
    assert latency_of(_samples(list(range(1, 100))), seed=0).p99 is None
    # Values 1 to 101: rank 0.99 * 100 = 99 is the hundredth value.
    found = latency_of(_samples([1_000_000 * v for v in range(1, 102)]), seed=0)
    assert found.p99 == 100.0


def test_too_few_rounds_have_no_interval() -> None:
    blocks = {number: np.asarray([1, 2, 3]) for number in range(statistics.MIN_ROUNDS)}
    assert statistics.median_interval(blocks, seed=0) is not None
    del blocks[0]
    assert statistics.median_interval(blocks, seed=0) is None
    assert statistics.ratio(blocks, blocks, seed=0) == (1.0, None)


def test_drift_compares_the_last_quarter_with_the_first() -> None:
    assert statistics.drift(np.asarray([10, 10, 11, 11, 11, 11, 15, 15])) == pytest.approx(0.5)
    assert statistics.drift(np.asarray([10, 10, 10, 15, 15, 15, 15])) is None


@pytest.mark.parametrize(("runs", "largest"), [(63, None), (64, 1), (100, 3), (1000, 78)])
def test_early_stopping_takes_the_largest_value_that_the_binomial_tail_allows(
    runs: int, largest: int | None
) -> None:
    """`largest` follows from summing binomial terms; MLPerf's own floor for p90 is 64 runs."""
    values = np.arange(1, runs + 1)
    found = statistics.early_stopping(values)
    assert found == (None if largest is None else runs + 1 - largest)
    assert _slow_early_stopping(values.tolist()) == found


def _slow_early_stopping(values: list[int]) -> int | None:
    """The definition, term by term."""
    from math import comb

    count, found, tail = len(values), None, 0.0
    for over in range(count):
        tail += comb(count, over) * 0.1**over * 0.9 ** (count - over)
        if tail > 0.01:
            break
        if over >= 1:
            found = sorted(values, reverse=True)[over - 1]
    return found


def _slow_weighted_median(blocks: dict[int, np.ndarray], counts: list[int]) -> float:
    values = [v for number, times in enumerate(counts) for v in list(blocks[number]) * times]
    return float(np.median(values))


def test_weighted_medians_equal_the_median_of_repeated_blocks() -> None:
    random = np.random.default_rng(1)
    blocks = {i: random.integers(1, 50, size=random.integers(1, 9)) for i in range(7)}
    weights = random.multinomial(7, [1 / 7] * 7, size=50)
    found = statistics._weighted_medians(blocks, sorted(blocks), weights)
    slow = [_slow_weighted_median(blocks, list(row)) for row in weights]
    assert found.tolist() == slow


def test_a_ratio_is_of_all_rounds_and_its_interval_knows_of_those_that_one_sat_out() -> None:
    # The machine was twice as slow in rounds 5 to 9, in which the baseline sat out.
    fast = {i: np.full(3, 100 if i < 5 else 200) for i in range(10)}
    slow = {i: np.full(1, 300) for i in range(5)}
    # Medians of all runs: 300 / 150; where both were timed: 300 / 100.
    assert statistics.ratio(slow, fast, seed=0) == (2.0, (2.0, 3.0))
    assert statistics.ratio({0: np.ones(1)}, {1: np.ones(1)}, seed=0) is None


def _any_rounds(random: np.random.Generator) -> statistics.Blocks:
    """Some of 40 rounds, with a few runs each, on a machine that changes."""
    held = random.choice(40, size=random.integers(1, 41), replace=False)
    level = float(np.exp(2 * random.normal()))
    blocks = {}
    for number in held:
        noise = np.exp(0.3 * random.normal(size=random.integers(1, 6)))
        blocks[int(number)] = np.asarray(1e6 * level * (1 + number / 20) * noise, np.int64)
    return blocks


@pytest.mark.parametrize("seed", range(40))
def test_every_ratio_is_the_quotient_of_the_medians_and_its_interval_holds_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    sides = [_any_rounds(random) for _ in range(4)]
    medians = [float(np.median(statistics.pooled(side))) for side in sides]
    parts = [range(8 * part, 8 * part + 8) for part in range(5)] if seed % 2 else ()
    one, other = medians[0] / medians[1], medians[2] / medians[3]
    found = (
        (statistics.ratio(*sides[:2], seed=seed, resamples=50, parts=parts), one),
        (statistics.unpaired_ratio(*sides[:2], seed=seed, resamples=50), one),
        (
            statistics.ratio_of_ratios(
                (sides[0], sides[1]), (sides[2], sides[3]), seed=seed, resamples=50
            ),
            other / one,
        ),
    )
    for ratio, expected in found:
        if ratio is None:
            continue
        value, interval = ratio
        assert value == pytest.approx(expected, rel=1e-12)
        assert interval is None or interval[0] <= value <= interval[1]
    for side, median in zip(sides, medians, strict=True):
        interval = statistics.median_interval(side, seed=seed, resamples=50, parts=parts)
        assert interval is None or interval[0] <= median <= interval[1]


def test_intervals_are_the_same_for_the_same_seed_only() -> None:
    blocks = {i: np.random.default_rng(i).integers(100, 200, 9) for i in range(12)}
    assert statistics.median_interval(blocks, seed=3) == statistics.median_interval(blocks, seed=3)
    draws = {statistics.median_interval(blocks, seed=seed) for seed in range(8)}
    assert len(draws) > 1


def _simulated(random: np.random.Generator, truth: float) -> tuple[dict, dict]:
    """Two models on a machine whose speed differs between rounds, the same for both."""
    reference, candidate = {}, {}
    for number in range(32):
        machine = np.exp(0.15 * random.normal())
        own = np.exp(0.01 * random.normal(size=2))
        reference[number] = truth * machine * own[0] * np.exp(0.02 * random.normal(size=6))
        candidate[number] = machine * own[1] * np.exp(0.02 * random.normal(size=20))
    return reference, candidate


@pytest.mark.parametrize("truth", [1.0, 1.05, 20.0])
def test_ratio_interval_covers_the_truth(truth: float) -> None:
    random = np.random.default_rng(7)
    intervals = []
    for _ in range(100):
        reference, candidate = _simulated(random, truth)
        found = statistics.ratio(reference, candidate, seed=0, resamples=400)
        assert found is not None and found[1] is not None
        intervals.append(found[1])
    covered = sum(low <= truth <= high for low, high in intervals)
    assert covered >= 90
    # Narrow too: pairing removes the 15 % by which rounds differ.
    assert np.median([high / low for low, high in intervals]) < 1.1


def test_median_interval_covers_the_truth_when_blocks_resemble_each_other() -> None:
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(100):
        levels = np.exp(0.1 * random.normal(size=32))
        blocks = {
            i: level * np.exp(0.01 * random.normal(size=50)) for i, level in enumerate(levels)
        }
        interval = statistics.median_interval(blocks, seed=0, resamples=400)
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    # Single runs resampled as if independent would cover about a quarter of the time.
    assert covered >= 88


def test_the_luck_of_processes_is_in_the_interval() -> None:
    """Equal models whose processes differ by 1 %: rounds alone promise too much."""
    random = np.random.default_rng(0)
    parts = [range(5 * i, 5 * i + 5) for i in range(5)]
    alone, whole = 0, 0
    for trial in range(100):
        sides = []
        for _ in range(2):
            luck = np.repeat(1e6 * (1 + 0.01 * random.normal(size=5)), 5)
            noise = 1 + 0.002 * random.normal(size=(25, 8))
            sides.append({n: luck[n] * noise[n] for n in range(25)})
        for count, kwargs in enumerate(({}, {"parts": parts})):
            found = statistics.ratio(*sides, seed=trial, resamples=200, **kwargs)
            assert found is not None and found[1] is not None
            covers = found[1][0] <= 1 <= found[1][1]
            alone, whole = alone + (covers and not count), whole + (covers and bool(count))
    assert alone < 90 <= whole


def test_an_interval_is_never_narrowed_by_its_parts() -> None:
    assert statistics.widened((0.9, 1.2), 1.0, [1.0, 1.0, 1.0]) == (0.9, 1.2)
    assert statistics.widened((0.99, 1.01), 1.0, [0.8, 1.25]) == (0.99, 1.01)
    low, high = statistics.widened((0.99, 1.01), 1.0, [0.9, 1.0, 1 / 0.9])
    # By hand: the standard error is ln(1/0.9) / sqrt(3), Student's quantile for 2 is 4.3027.
    half = 4.302653 * np.log(1 / 0.9) / np.sqrt(3)
    assert (low, high) == (pytest.approx(np.exp(-half)), pytest.approx(np.exp(half)))
