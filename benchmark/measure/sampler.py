"""Timing several models side by side, in turns."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.config import Block, Protocol
from benchmark.devices import Device, Job, Loaded, ModelRefused, Timer, Turn, Warmed
from benchmark.measure.journal import Journal
from benchmark.schema import Conditions, Memory, Stretch
from benchmark.statistics import Array
from edge.console import say
from edge.errors import MeasurementError

# Seconds of a stretch of a sustained run, and the least number of stretches.
_STRETCH_S = 30.0
_STRETCHES_AT_LEAST = 8
# Share of the warm-up seconds for a restarted process of a model.
_RESTART_WARMUP_SHARE = 0.3


@dataclass
class Samples:
    """Measurements of one model.

    blocks: round -> durations in nanoseconds; each the median of a whole turn if not `single`.
    runs: number of recorded runs. spent_s: seconds in turns, unrecorded runs included.
    """

    loaded: Loaded
    warmed: Warmed
    blocks: dict[int, Array] = field(default_factory=dict)
    runs: int = 0
    single: bool = True
    spent_s: float = 0.0
    processor_s: float | None = 0.0
    memory: Memory | None = None
    stretches: tuple[Stretch, ...] = ()

    def add(self, number: int, turn: Turn) -> None:
        """Add a turn, measured now or before an interruption."""
        self.blocks[number] = np.asarray(turn.raw_ns, np.int64)
        self.runs += turn.count
        self.single = self.single and turn.single
        self.spent_s += turn.duration_s
        if turn.processor_s is None:
            self.processor_s = None
        elif self.processor_s is not None:
            self.processor_s += turn.processor_s


@dataclass(frozen=True)
class Comparison:
    """The samples of each job, in the order of the jobs, and the state of the device around them.

    refusals: job number -> reason of the device for not loading its model, which has no samples.
    other_cores: mean number of cores kept busy by other programs during the rounds.
    failure: error that ended the rounds early; the measurements before it count.
    processes: number of processes of each model, in sequence, each for an equal part of the rounds.
    """

    samples: tuple[Samples, ...]
    before: Conditions
    after: Conditions | None
    other_cores: float | None
    failure: str | None = None
    refusals: Mapping[int, str] = field(default_factory=dict)
    processes: int = 1


def ignore_progress(rounds: int) -> None:
    """Ignore the progress."""


def ignore_timer(number: int, timer: Timer) -> None:
    """Ask nothing more of a model."""


@dataclass(frozen=True)
class Observer:
    """Callbacks of a comparison.

    progress: called with the number of finished rounds. finish: called with each job's number and
    timer after the rounds, for measurements beside latency. name: comparison in the journal.
    """

    progress: Callable[[int], None] = ignore_progress
    finish: Callable[[int, Timer], None] = ignore_timer
    journal: Journal = field(default_factory=lambda: Journal(None, ""))
    name: str = ""


def compare(
    jobs: Sequence[Job],
    device: Device,
    protocol: Protocol,
    *,
    seed: int,
    observer: Observer | None = None,
) -> Comparison:
    """Load every job in a process of its own, keep all alive, and time them in turns.

    After a part of the rounds all processes are restarted, `protocol.processes` times in total if
    the device supports it: the memory layout of a process is random and affects all of its runs.
    A job whose model the device refuses to load is left out.
    Raises MeasurementError if a model fails or its process dies before every model has recorded
    runs; later, the recorded runs are returned with the failure. All processes are ended.
    """
    return _Comparing(jobs, device, protocol, seed, observer or Observer()).result()


class _Comparing:
    """One comparison; jobs are identified by their number."""

    def __init__(
        self,
        jobs: Sequence[Job],
        device: Device,
        protocol: Protocol,
        seed: int,
        observer: Observer,
    ) -> None:
        self._jobs, self._device, self._protocol = jobs, device, protocol
        self._seed, self._observer = seed, observer
        self._samples: dict[int, Samples] = {}
        self._refusals: dict[int, str] = {}
        self._load = _Load()

    def result(self) -> Comparison:
        """Run the comparison; after a failure return what was recorded before it."""
        count = self._protocol.processes if self._device.restarts else 1
        before: Conditions | None = None
        after = failure = rounds = None
        for process in range(count):
            with contextlib.ExitStack() as stack:
                try:
                    timers = self._open(stack)
                    before = before or self._device.conditions()
                    rounds = rounds or self._rounds()
                    after = self._take(rounds, timers, process, count)
                    if process == count - 1:
                        self._measure_after_rounds(timers)
                except MeasurementError as error:
                    if not self._samples or not all(s.blocks for s in self._samples.values()):
                        raise
                    failure, after = str(error), None
                    break
        assert before is not None
        samples = tuple(self._samples[number] for number in sorted(self._samples))
        other = None if after is None else self._load.other_cores()
        return Comparison(samples, before, after, other, failure, self._refusals, count)

    def _open(self, stack: contextlib.ExitStack) -> dict[int, Timer]:
        timers = {}
        for number, job in enumerate(self._jobs):
            if number in self._refusals:
                continue
            timer = stack.enter_context(self._device.open(job))
            try:
                samples = _start(job, timer, self._protocol, restarted=number in self._samples)
            except ModelRefused as refusal:
                if number in self._samples:
                    raise
                say(f"{job.label} is left out: {refusal}")
                self._refusals[number] = str(refusal)
                timer.close()
                continue
            self._samples.setdefault(number, samples)
            timers[number] = timer
        return timers

    def _rounds(self) -> Rounds:
        jobs = {number: self._jobs[number] for number in self._samples}
        return Rounds(jobs, self._samples, self._protocol, self._seed, self._observer)

    def _take(
        self, rounds: Rounds, timers: Mapping[int, Timer], process: int, count: int
    ) -> Conditions:
        """Run the rounds of one set of processes, and record the load of other programs."""
        numbers = self._protocol.part(process, count)
        before, start = self._device.conditions(), time.monotonic()
        own_s = sum(sample.processor_s or 0.0 for sample in self._samples.values())
        rounds.take(timers, numbers)
        after, duration_s = self._device.conditions(), time.monotonic() - start
        used = [sample.processor_s for sample in self._samples.values()]
        spent_s = None if None in used else sum(value or 0.0 for value in used) - own_s
        self._load.add(before, after, spent_s, duration_s)
        return after

    def _measure_after_rounds(self, timers: Mapping[int, Timer]) -> None:
        """Measure memory, sustained load and the rest after all rounds, to disturb none."""
        for number, timer in timers.items():
            self._samples[number].memory = timer.memory()
        if self._protocol.sustained_s:
            for number, timer in timers.items():
                stretches = sustain(timer, self._device, self._protocol.sustained_s)
                self._samples[number].stretches = stretches
        for number, timer in timers.items():
            self._observer.finish(number, timer)


@dataclass
class _Load:
    """Load of other programs during the rounds; busy_s: None once it could not be read."""

    busy_s: float | None = 0.0
    duration_s: float = 0.0

    def add(
        self, before: Conditions, after: Conditions, own_s: float | None, duration_s: float
    ) -> None:
        """Add some rounds, in which the models' processes used `own_s` of processor time."""
        self.duration_s += duration_s
        if self.busy_s is None or own_s is None or before.busy_s is None or after.busy_s is None:
            self.busy_s = None
        else:
            self.busy_s += after.busy_s - before.busy_s - own_s

    def other_cores(self) -> float | None:
        """Return the cores kept busy by others; None under one second (coarse clock ticks)."""
        if self.busy_s is None or self.duration_s < 1:
            return None
        return round(max(0.0, self.busy_s / self.duration_s), 2)


def sustain(timer: Timer, device: Device, duration_s: float) -> tuple[Stretch, ...]:
    """Run one model alone without pause, and read the device's state after each stretch."""
    part_s = min(_STRETCH_S, duration_s / _STRETCHES_AT_LEAST)
    begin = time.monotonic()
    stretches: list[Stretch] = []
    while (start_s := time.monotonic() - begin) < duration_s:
        turn = timer.turn(Block(runs=1, min_s=part_s, max_s=2 * part_s))
        state = device.conditions()
        values = np.asarray(turn.raw_ns, np.float64) / 1e6
        stretches.append(
            Stretch(
                start_s=round(start_s, 1),
                end_s=round(time.monotonic() - begin, 1),
                n=turn.count,
                p50=float(np.median(values)),
                p90=float(np.percentile(values, 90)) if turn.single else None,
                temperature_c=state.temperature_c,
                frequency_mhz=state.frequency_mhz,
                thermal_status=state.thermal_status,
            )
        )
    return tuple(stretches)


class Rounds:
    """The rounds of a comparison: every model once a round, in an order drawn anew each time.

    The order keeps a model from always running after the same neighbor; taking turns makes a
    machine that slows down or speeds up do so for all.
    """

    def __init__(
        self,
        jobs: Mapping[int, Job],
        samples: Mapping[int, Samples],
        protocol: Protocol,
        seed: int,
        observer: Observer,
    ) -> None:
        self._jobs, self._samples = jobs, samples
        self._protocol, self._observer = protocol, observer
        self._blocks = {number: protocol.turns(len(job.feeds)) for number, job in jobs.items()}
        self._restore()
        self._plans = {number: self._plan(number) for number in jobs}
        draw, order = random.Random(seed), list(jobs)
        self._orders: list[list[int]] = []
        for _ in range(protocol.rounds):
            draw.shuffle(order)
            self._orders.append(list(order))

    def take(self, timers: Mapping[int, Timer], rounds: Sequence[int]) -> None:
        """Run the remaining turns of some rounds, by their numbers."""
        for number in rounds:
            remaining = [job for job in self._orders[number] if self._is_due(job, number)]
            if remaining and self._protocol.cooldown_s:
                time.sleep(self._protocol.cooldown_s)
            for job in remaining:
                self._take(job, timers[job], number)
            self._observer.progress(number + 1)

    def _restore(self) -> None:
        """Add the turns that were recorded before an interruption."""
        observer = self._observer
        for job, blocks in self._blocks.items():
            for number in range(len(blocks)):
                turn = observer.journal.turn(observer.name, self._name(job), number)
                if turn is not None:
                    self._samples[job].add(number, turn)

    def _plan(self, job: int) -> frozenset[int]:
        if self._protocol.passes is not None:
            return frozenset(range(len(self._blocks[job])))
        return rounds_of(self._samples[job].warmed.run_s, self._protocol)

    def _is_due(self, job: int, number: int) -> bool:
        sample = self._samples[job]
        spent = self._protocol.passes is None and sample.spent_s >= self._protocol.max_s
        return number in self._plans[job] and number not in sample.blocks and not spent

    def _take(self, job: int, timer: Timer, number: int) -> None:
        turn = timer.turn(self._blocks[job][number])
        self._samples[job].add(number, turn)
        observer = self._observer
        observer.journal.record(observer.name, self._name(job), number, turn)

    def _name(self, job: int) -> str:
        """Return the name of a job in the journal; two jobs may have the same label."""
        return f"{job} {self._jobs[job].label}"


def rounds_of(run_s: float, protocol: Protocol) -> frozenset[int]:
    """Return the rounds in which a model with `run_s` seconds per run takes part.

    These are all rounds if its turns fit into `max_s`, else as many as fit. They are the first of
    one order for all models, every prefix of which is spread evenly: of any two models one takes
    part in all rounds of the other, so that they share as many rounds as possible.
    """
    runs, turn = 1, protocol.turn
    while (1 + runs) * run_s < turn.max_s and (runs < turn.runs or runs * run_s < turn.min_s):
        runs += 1
    affordable = protocol.max_s / ((1 + runs) * run_s) if run_s > 0 else protocol.rounds
    return frozenset(_spread(protocol.rounds)[: max(1, int(affordable))])


def _spread(count: int) -> list[int]:
    """Return 0 to count - 1 in bit-reversed order: first, middle, quarters, eighths ..."""
    bits = (count - 1).bit_length()
    return sorted(range(count), key=lambda number: f"{number:0{bits}b}"[::-1])


def _start(job: Job, timer: Timer, protocol: Protocol, *, restarted: bool) -> Samples:
    loaded = timer.load()
    if restarted:
        # The processor is warm by now; only this process is not.
        protocol = protocol.model_copy(
            update={"warmup_s": protocol.warmup_s * _RESTART_WARMUP_SHARE}
        )
    warmed = timer.warm(protocol)
    if not restarted:
        say(
            f"{job.label}: loaded in {loaded.load_ms:.0f} ms, first run {loaded.first_ms:.0f} ms, "
            f"then about {1000 * warmed.run_s:.3g} ms"
        )
    return Samples(loaded, warmed)
