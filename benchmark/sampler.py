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
from benchmark.journal import Journal
from benchmark.schema import Conditions, Memory, Stretch
from benchmark.statistics import Array
from edge.console import say
from edge.errors import MeasurementError

# A sustained run tells how it goes this often, and not less than so many times.
_STRETCH_S = 30.0
_STRETCHES_AT_LEAST = 8


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
    """

    samples: tuple[Samples, ...]
    before: Conditions
    after: Conditions | None
    other_cores: float | None
    failure: str | None = None
    refusals: Mapping[int, str] = field(default_factory=dict)


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

    A job whose model the device refuses to load is left out.
    Raises MeasurementError when a model fails or its process dies before anything was recorded of
    all of them; later, what was recorded is returned with the failure. No process is left.
    """
    watched = observer or Observer()
    failure, after, duration_s = None, None, 0.0
    with contextlib.ExitStack() as stack:
        timers, samples = {}, []
        refusals = {}
        for number, job in enumerate(jobs):
            timer = stack.enter_context(device.open(job))
            try:
                samples.append(_start(job, timer, protocol))
                timers[number] = timer
            except ModelRefused as refusal:
                say(f"{job.label} is left out: {refusal}")
                refusals[number] = str(refusal)
                timer.close()
        before, start = device.conditions(), time.monotonic()
        taken = [jobs[number] for number in timers]
        labelled = [job.label for job in taken]
        rounds = Rounds(labelled, list(timers.values()), samples, protocol, seed, watched)
        # Turns that are known from before took no time now.
        known_s = rounds.recall([len(job.feeds) for job in taken])
        try:
            rounds.take()
            after, duration_s = device.conditions(), time.monotonic() - start
            _afterwards(timers, samples, device, protocol, watched)
        except MeasurementError as error:
            if not all(sample.blocks for sample in samples):
                raise
            failure = str(error)
    own = [sample.processor_s for sample in samples]
    other = None
    if after is not None and not any(value is None for value in own):
        own_s = sum(value or 0.0 for value in own) - known_s
        other = _other_cores(before, after, own_s, duration_s)
    return Comparison(tuple(samples), before, after, other, failure, refusals)


def _afterwards(
    timers: Mapping[int, Timer],
    samples: Sequence[Samples],
    device: Device,
    protocol: Protocol,
    observer: Observer,
) -> None:
    """What is measured once the rounds are over, so that it disturbs none of them."""
    for timer, sample in zip(timers.values(), samples, strict=True):
        sample.memory = timer.memory()
    if protocol.sustained_s:
        for timer, sample in zip(timers.values(), samples, strict=True):
            sample.stretches = sustain(timer, device, protocol.sustained_s)
    for number, timer in timers.items():
        observer.finish(number, timer)


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
        labels: Sequence[str],
        timers: Sequence[Timer],
        samples: Sequence[Samples],
        protocol: Protocol,
        seed: int,
        observer: Observer,
    ) -> None:
        self._labels, self._timers, self._samples = labels, timers, samples
        self._protocol, self._seed, self._observer = protocol, seed, observer
        self._blocks: list[list[Block]] = []

    def recall(self, inputs: Sequence[int]) -> float:
        """Plan the turns of models with so many inputs each, and count those recorded before.

        Returns the processor seconds of these.
        """
        self._blocks = [self._protocol.turns(count) for count in inputs]
        observer, known_s = self._observer, 0.0
        for label, sample, blocks in zip(self._labels, self._samples, self._blocks, strict=True):
            for number in range(len(blocks)):
                turn = observer.journal.turn(observer.name, label, number)
                if turn is not None:
                    sample.add(number, turn)
                    known_s += turn.processor_s or 0.0
        return known_s

    def take(self) -> None:
        """Every round that is left."""
        draw = random.Random(self._seed)
        order = list(range(len(self._timers)))
        plans = [self._plan(index) for index in order]
        for number in range(self._protocol.rounds):
            draw.shuffle(order)
            left = [i for i in order if number in plans[i] and self._is_wanted(i, number)]
            if left and self._protocol.cooldown_s:
                time.sleep(self._protocol.cooldown_s)
            for index in left:
                self._take(index, number)
            self._observer.progress(number + 1)

    def _plan(self, index: int) -> frozenset[int]:
        if self._protocol.passes is not None:
            return frozenset(range(len(self._blocks[index])))
        return rounds_of(self._samples[index].warmed.run_s, self._protocol)

    def _is_wanted(self, index: int, number: int) -> bool:
        sample = self._samples[index]
        spent = self._protocol.passes is None and sample.spent_s >= self._protocol.max_s
        return number not in sample.blocks and not spent

    def _take(self, index: int, number: int) -> None:
        turn = self._timers[index].turn(self._blocks[index][number])
        self._samples[index].add(number, turn)
        observer = self._observer
        observer.journal.record(observer.name, self._labels[index], number, turn)


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


def _start(job: Job, timer: Timer, protocol: Protocol) -> Samples:
    loaded = timer.load()
    warmed = timer.warm(protocol)
    say(
        f"{job.label}: loaded in {loaded.load_ms:.0f} ms, first run {loaded.first_ms:.0f} ms, "
        f"then about {1000 * warmed.run_s:.3g} ms"
    )
    return Samples(loaded, warmed)


def _other_cores(
    before: Conditions, after: Conditions, own_s: float, duration_s: float
) -> float | None:
    """Cores that others kept busy; None where unknown or too short to tell from clock ticks."""
    if before.busy_s is None or after.busy_s is None or duration_s < 1:
        return None
    return round(max(0.0, (after.busy_s - before.busy_s - own_s) / duration_s), 2)
