"""Timing several models side by side, in turns."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.config import Protocol
from benchmark.devices import Device, Job, Loaded, Timer, Warmed
from benchmark.schema import Conditions, Memory
from benchmark.statistics import Array
from edge.console import say


@dataclass
class Samples:
    """What was measured of one model.

    blocks: round -> durations in nanoseconds. spent_s: in turns, unrecorded runs included.
    """

    loaded: Loaded
    warmed: Warmed
    blocks: dict[int, Array] = field(default_factory=dict)
    spent_s: float = 0.0
    processor_s: float = 0.0
    memory: Memory | None = None


@dataclass(frozen=True)
class Comparison:
    """The samples of each job, in the order of the jobs, and the state of the device around them.

    other_cores: cores kept busy by other programs during the rounds, on average.
    """

    samples: tuple[Samples, ...]
    before: Conditions
    after: Conditions
    other_cores: float | None


def compare(
    jobs: Sequence[Job],
    device: Device,
    protocol: Protocol,
    *,
    seed: int,
    progress: Callable[[int], None] = lambda rounds_done: None,
) -> Comparison:
    """Load every job in a process of its own, keep all alive, and time them in turns.

    Raises MeasurementError when a model fails or its process dies; no process is left then.
    """
    with contextlib.ExitStack() as stack:
        timers, samples = [], []
        for job in jobs:
            timer = stack.enter_context(device.open(job))
            timers.append(timer)
            samples.append(_start(job, timer, protocol))
        before, start = device.conditions(), time.monotonic()
        take_turns(timers, samples, protocol, seed=seed, progress=progress)
        after, duration_s = device.conditions(), time.monotonic() - start
        for timer, sample in zip(timers, samples, strict=True):
            sample.memory = timer.memory()
    own_s = sum(sample.processor_s for sample in samples)
    return Comparison(tuple(samples), before, after, _other_cores(before, after, own_s, duration_s))


def take_turns(
    timers: Sequence[Timer],
    samples: Sequence[Samples],
    protocol: Protocol,
    *,
    seed: int,
    progress: Callable[[int], None] = lambda rounds_done: None,
) -> None:
    """The rounds of a comparison: every model once a round, in an order drawn anew each time.

    The order keeps a model from always running after the same neighbour; taking turns makes a
    machine that slows down or speeds up do so for all.
    """
    draw = random.Random(seed)
    order = list(range(len(timers)))
    plans = [rounds_of(sample.warmed.run_s, protocol) for sample in samples]
    for number in range(protocol.rounds):
        draw.shuffle(order)
        for index in order:
            sample = samples[index]
            if number in plans[index] and sample.spent_s < protocol.max_s:
                _take_turn(timers[index], sample, protocol, number)
        progress(number + 1)


def rounds_of(run_s: float, protocol: Protocol) -> frozenset[int]:
    """The rounds in which a model takes part that needs `run_s` seconds a run.

    All, if its turns fit into `max_s`; else as many as fit. Which ones comes from one order for all
    models, of which every beginning is spread evenly: of any two models one takes part in all
    rounds of the other, so that they share as many as possible.
    """
    runs = 1
    while (1 + runs) * run_s < protocol.turn_max_s and (
        runs < protocol.block_runs or runs * run_s < protocol.block_s
    ):
        runs += 1
    affordable = protocol.max_s / ((1 + runs) * run_s) if run_s > 0 else protocol.rounds
    return frozenset(_spread(protocol.rounds)[: max(1, int(affordable))])


def _spread(count: int) -> list[int]:
    """0 to count - 1 by their bits read backwards: first, middle, quarters, eighths ..."""
    bits = (count - 1).bit_length()
    return sorted(range(count), key=lambda number: f"{number:0{bits}b}"[::-1])


def _start(job: Job, timer: Timer, protocol: Protocol) -> Samples:
    loaded = timer.load()
    warmed = timer.warm(protocol)
    say(
        f"{job.label}: loaded in {loaded.load_ms:.0f} ms, first run {loaded.first_ms:.0f} ms, "
        f"then about {1000 * warmed.run_s:.3g} ms"
    )
    return Samples(loaded, warmed)


def _take_turn(timer: Timer, sample: Samples, protocol: Protocol, number: int) -> None:
    turn = timer.turn(protocol)
    sample.blocks[number] = np.asarray(turn.raw_ns, np.int64)
    sample.spent_s += turn.duration_s
    sample.processor_s += turn.processor_s


def _other_cores(
    before: Conditions, after: Conditions, own_s: float, duration_s: float
) -> float | None:
    """Cores that others kept busy; None where unknown or too short to tell from clock ticks."""
    if before.busy_s is None or after.busy_s is None or duration_s < 1:
        return None
    return round(max(0.0, (after.busy_s - before.busy_s - own_s) / duration_s), 2)
