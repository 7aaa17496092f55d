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

# A sustained run tells how it goes this often, and not less than so many times.
_STRETCH_S = 30.0
_STRETCHES_AT_LEAST = 8
# Share of the seconds of warm-up that a further process of a model gets.
_AGAIN = 0.3


@dataclass
class Samples:
    """What was measured of one model.

    blocks: round -> durations in nanoseconds; each the median of a whole turn if not `single`.
    runs: recorded in all. spent_s: in turns, unrecorded runs included.
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
        """A turn, measured now or before."""
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

    refusals: by the number of a job, why the device could not load its model; it has no samples.
    other_cores: cores kept busy by other programs during the rounds, on average.
    failure: what ended the rounds early; what was measured until then counts.
    processes: how many each model had, one after another, each for an equal part of the rounds.
    """

    samples: tuple[Samples, ...]
    before: Conditions
    after: Conditions | None
    other_cores: float | None
    failure: str | None = None
    refusals: Mapping[int, str] = field(default_factory=dict)
    processes: int = 1


def nothing_done(rounds: int) -> None:
    """Progress that nobody looks at."""


def nothing_more(number: int, timer: Timer) -> None:
    """No further questions to a model."""


@dataclass(frozen=True)
class Observer:
    """Who wants to know.

    progress: told how many rounds are done. finish: called with each job's number and timer when
    the rounds are over, for what is asked beside latency. name: of the comparison, in the journal.
    """

    progress: Callable[[int], None] = nothing_done
    finish: Callable[[int, Timer], None] = nothing_more
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

    After a part of the rounds all processes are ended and begun anew, `protocol.processes` times in
    all where the device can: where a process lies in memory is luck that lasts as long as it does.
    A job whose model the device refuses to load is left out.
    Raises MeasurementError when a model fails or its process dies before anything was recorded of
    all of them; later, what was recorded is returned with the failure. No process is left.
    """
    return _Comparing(jobs, device, protocol, seed, observer or Observer()).result()


class _Comparing:
    """One comparison; jobs go by their number."""

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
        """Everything, or what was recorded until a failure."""
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
                        self._afterwards(timers)
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
                found = _start(job, timer, self._protocol, again=number in self._samples)
            except ModelRefused as refusal:
                if number in self._samples:
                    raise
                say(f"{job.label} is left out: {refusal}")
                self._refusals[number] = str(refusal)
                timer.close()
                continue
            self._samples.setdefault(number, found)
            timers[number] = timer
        return timers

    def _rounds(self) -> Rounds:
        jobs = {number: self._jobs[number] for number in self._samples}
        return Rounds(jobs, self._samples, self._protocol, self._seed, self._observer)

    def _take(
        self, rounds: Rounds, timers: Mapping[int, Timer], process: int, count: int
    ) -> Conditions:
        """The rounds of one set of processes, and what others did meanwhile."""
        numbers = self._protocol.part(process, count)
        before, start = self._device.conditions(), time.monotonic()
        own_s = sum(sample.processor_s or 0.0 for sample in self._samples.values())
        rounds.take(timers, numbers)
        after, duration_s = self._device.conditions(), time.monotonic() - start
        used = [sample.processor_s for sample in self._samples.values()]
        spent_s = None if None in used else sum(value or 0.0 for value in used) - own_s
        self._load.add(before, after, spent_s, duration_s)
        return after

    def _afterwards(self, timers: Mapping[int, Timer]) -> None:
        """What is measured once the rounds are over, so that it disturbs none of them."""
        for number, timer in timers.items():
            self._samples[number].memory = timer.memory()
        if self._protocol.sustained_s:
            for number, timer in timers.items():
                found = sustain(timer, self._device, self._protocol.sustained_s)
                self._samples[number].stretches = found
        for number, timer in timers.items():
            self._observer.finish(number, timer)


@dataclass
class _Load:
    """What other programs did while rounds were taken; None once it could not be told."""

    busy_s: float | None = 0.0
    duration_s: float = 0.0

    def add(
        self, before: Conditions, after: Conditions, own_s: float | None, duration_s: float
    ) -> None:
        """Some rounds, in which the models' processes used `own_s` of processor time."""
        self.duration_s += duration_s
        if self.busy_s is None or own_s is None or before.busy_s is None or after.busy_s is None:
            self.busy_s = None
        else:
            self.busy_s += after.busy_s - before.busy_s - own_s

    def other_cores(self) -> float | None:
        """Cores kept busy by others; None if it took too short to tell from clock ticks."""
        if self.busy_s is None or self.duration_s < 1:
            return None
        return round(max(0.0, self.busy_s / self.duration_s), 2)


def sustain(timer: Timer, device: Device, duration_s: float) -> tuple[Stretch, ...]:
    """One model alone without a rest, and the state of the device after each part of it."""
    part_s = min(_STRETCH_S, duration_s / _STRETCHES_AT_LEAST)
    begin = time.monotonic()
    found: list[Stretch] = []
    while (start_s := time.monotonic() - begin) < duration_s:
        turn = timer.turn(Block(runs=1, min_s=part_s, max_s=2 * part_s))
        state = device.conditions()
        values = np.asarray(turn.raw_ns, np.float64) / 1e6
        found.append(
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
    return tuple(found)


class Rounds:
    """The rounds of a comparison: every model once a round, in an order drawn anew each time.

    The order keeps a model from always running after the same neighbour; taking turns makes a
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
        self._recall()
        self._plans = {number: self._plan(number) for number in jobs}
        draw, order = random.Random(seed), list(jobs)
        self._orders: list[list[int]] = []
        for _ in range(protocol.rounds):
            draw.shuffle(order)
            self._orders.append(list(order))

    def take(self, timers: Mapping[int, Timer], rounds: Sequence[int]) -> None:
        """What is left of some rounds, by their numbers."""
        for number in rounds:
            left = [job for job in self._orders[number] if self._is_wanted(job, number)]
            if left and self._protocol.cooldown_s:
                time.sleep(self._protocol.cooldown_s)
            for job in left:
                self._take(job, timers[job], number)
            self._observer.progress(number + 1)

    def _recall(self) -> None:
        """Count the turns that were recorded before an interruption."""
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

    def _is_wanted(self, job: int, number: int) -> bool:
        sample = self._samples[job]
        spent = self._protocol.passes is None and sample.spent_s >= self._protocol.max_s
        return number in self._plans[job] and number not in sample.blocks and not spent

    def _take(self, job: int, timer: Timer, number: int) -> None:
        turn = timer.turn(self._blocks[job][number])
        self._samples[job].add(number, turn)
        observer = self._observer
        observer.journal.record(observer.name, self._name(job), number, turn)

    def _name(self, job: int) -> str:
        """A job in the journal. Labels are for people: two jobs may have the same one."""
        return f"{job} {self._jobs[job].label}"


def rounds_of(run_s: float, protocol: Protocol) -> frozenset[int]:
    """The rounds in which a model takes part that needs `run_s` seconds a run.

    All, if its turns fit into `max_s`; else as many as fit. Which ones comes from one order for all
    models, of which every beginning is spread evenly: of any two models one takes part in all
    rounds of the other, so that they share as many as possible.
    """
    runs, turn = 1, protocol.turn
    while (1 + runs) * run_s < turn.max_s and (runs < turn.runs or runs * run_s < turn.min_s):
        runs += 1
    affordable = protocol.max_s / ((1 + runs) * run_s) if run_s > 0 else protocol.rounds
    return frozenset(_spread(protocol.rounds)[: max(1, int(affordable))])


def _spread(count: int) -> list[int]:
    """0 to count - 1 by their bits read backwards: first, middle, quarters, eighths ..."""
    bits = (count - 1).bit_length()
    return sorted(range(count), key=lambda number: f"{number:0{bits}b}"[::-1])


def _start(job: Job, timer: Timer, protocol: Protocol, *, again: bool) -> Samples:
    loaded = timer.load()
    if again:
        # The processor is warm by now; only this process is not.
        protocol = protocol.model_copy(update={"warmup_s": protocol.warmup_s * _AGAIN})
    warmed = timer.warm(protocol)
    if not again:
        say(
            f"{job.label}: loaded in {loaded.load_ms:.0f} ms, first run {loaded.first_ms:.0f} ms, "
            f"then about {1000 * warmed.run_s:.3g} ms"
        )
    return Samples(loaded, warmed)
