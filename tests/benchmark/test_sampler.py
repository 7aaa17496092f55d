"""Who is timed when; with timers whose clock is arithmetic."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmark.config import PRESETS, Block, Protocol
from benchmark.devices import Device, Job, Loaded, Timer, Turn, Warmed
from benchmark.measure import environment
from benchmark.measure.journal import Journal
from benchmark.measure.sampler import Comparison, Observer, compare, rounds_of
from benchmark.schema import Conditions, DeviceInfo, Memory
from edge.engines.base import Availability
from edge.errors import MeasurementError

PROTOCOL = Protocol(min_runs=16, min_s=0.8, max_s=4, rounds=8)


@dataclass
class FakeDevice(Device):
    """Models by label take so many seconds a run; `journal` lists who was asked for a turn."""

    seconds: dict[str, float]
    fails: str | None = None
    fails_after: int = 0
    journal: list[str] = field(default_factory=list)
    open_now: list[str] = field(default_factory=list)

    kind = "fake"
    restarts = True

    def availability(self, engine: str) -> Availability:
        return Availability("1")

    def describe(self) -> DeviceInfo:
        return environment.describe()

    def conditions(self) -> Conditions:
        return Conditions(at_utc="2024-01-01T00:00:00Z")

    def open(self, job: Job) -> Timer:
        self.open_now.append(job.label)
        return FakeTimer(self, job.label)


class FakeTimer(Timer):
    def __init__(self, device: FakeDevice, label: str) -> None:
        self._device, self._label = device, label

    def load(self) -> Loaded:
        return Loaded(1.0, 1.0)

    def warm(self, protocol: Protocol) -> Warmed:
        return Warmed(10, 10 * self._device.seconds[self._label])

    def turn(self, block: Block) -> Turn:
        self._device.journal.append(self._label)
        gone = len(self._device.journal) > self._device.fails_after
        if self._label == self._device.fails and gone:
            raise MeasurementError(f"{self._label}: gone")
        one = self._device.seconds[self._label]
        runs, spent = 1, 2 * one
        while spent < block.max_s and (runs < block.runs or runs * one < block.min_s):
            runs, spent = runs + 1, spent + one
        return Turn([int(one * 1e9)] * runs, spent, spent)

    def memory(self) -> Memory:
        return Memory(peak_rss_mb=1, delta_mb=1)

    def close(self) -> None:
        self._device.open_now.remove(self._label)


def _compare(device: FakeDevice, *, seed: int = 0, protocol: Protocol = PROTOCOL) -> Comparison:
    jobs = [Job(label, "onnxruntime", Path(label), 1, []) for label in device.seconds]
    return compare(jobs, device, protocol, seed=seed)


def test_every_model_takes_one_turn_a_round_and_gets_its_minimum() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.02, "c": 0.05})
    found = _compare(device)
    for start in range(0, len(device.journal), 3):
        assert sorted(device.journal[start : start + 3]) == ["a", "b", "c"]
    for samples in found.samples:
        assert sorted(samples.blocks) == list(range(PROTOCOL.rounds))
        runs = sum(len(block) for block in samples.blocks.values())
        seconds = sum(int(block.sum()) for block in samples.blocks.values()) / 1e9
        assert runs >= PROTOCOL.min_runs
        assert seconds >= PROTOCOL.min_s


def test_the_order_is_random_and_repeats_with_its_seed() -> None:
    journals = []
    for seed in (0, 0, 1):
        device = FakeDevice({"a": 0.01, "b": 0.01, "c": 0.01})
        _compare(device, seed=seed)
        journals.append(device.journal)
    assert journals[0] == journals[1] != journals[2]
    rounds = {tuple(journals[0][i : i + 3]) for i in range(0, len(journals[0]), 3)}
    assert len(rounds) > 2


def test_a_slow_model_sits_out_evenly_and_stops_at_its_limit() -> None:
    device = FakeDevice({"fast": 0.01, "slow": 0.4, "slower": 0.9})
    fast, slow, slower = _compare(device).samples
    # A turn takes 0.8 s and 1.8 s (one run unrecorded, one recorded), the limit is 4 s.
    assert sorted(slow.blocks) == [0, 1, 2, 4, 6]
    assert sorted(slower.blocks) == [0, 4]
    assert len(fast.blocks) == PROTOCOL.rounds


@pytest.mark.parametrize("rounds", [1, 2, 7, 32, 40])
def test_of_any_two_models_one_takes_part_in_all_rounds_of_the_other(rounds: int) -> None:
    protocol = PROTOCOL.model_copy(update={"rounds": rounds})
    plans = [rounds_of(0.01 * 1.2**step, protocol) for step in range(40)]
    assert plans[0] == frozenset(range(rounds))
    assert plans[-1] == {0}
    assert len({len(plan) for plan in plans}) >= min(rounds, 3)
    for one, other in itertools.product(plans, plans):
        assert one <= other or other <= one
    for plan in plans:
        gaps = [b - a for a, b in itertools.pairwise(sorted(plan))]
        assert max(gaps, default=0) <= 2 * -(-rounds // len(plan))


def test_a_machine_that_slows_down_does_not_exceed_the_limit_by_more_than_a_turn() -> None:
    device = FakeDevice({"a": 0.01})
    job = Job("a", "onnxruntime", Path("a"), 1, [])

    def slow_down(rounds_done: int) -> None:
        device.seconds["a"] = 1.0

    observer = Observer(progress=slow_down)
    (samples,) = compare([job], device, PROTOCOL, seed=0, observer=observer).samples
    # The first turn was quick, then each takes 2 s of 4 s.
    assert sorted(samples.blocks) == [0, 1, 2]


def test_a_model_slower_than_the_limit_runs_once() -> None:
    device = FakeDevice({"fast": 0.01, "glacial": 100.0})
    glacial = _compare(device).samples[1]
    assert [len(block) for block in glacial.blocks.values()] == [1]


def test_a_failure_ends_every_process() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.01, "c": 0.01}, fails="b")
    with pytest.raises(MeasurementError, match="b: gone"):
        _compare(device)
    assert device.open_now == []


def test_a_device_that_vanishes_keeps_what_was_recorded() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.01}, fails="b", fails_after=7)
    found = _compare(device)
    assert found.failure == "b: gone" and found.after is None and found.other_cores is None
    assert [len(sample.blocks) for sample in found.samples] in ([4, 3], [3, 3], [4, 4])
    assert device.open_now == []


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "measuring.jsonl"
    labels = {"a": 0.01, "b": 0.02}
    first = FakeDevice(dict(labels), fails="b", fails_after=7)
    jobs = [Job(label, "onnxruntime", Path(label), 1, []) for label in labels]

    def measure(device: FakeDevice, mark: str) -> tuple[Comparison, Journal]:
        journal = Journal(path, mark)
        observer = Observer(journal=journal, name="128 tokens")
        return compare(jobs, device, PROTOCOL, seed=0, observer=observer), journal

    broken, _ = measure(first, "same")
    recorded = sum(len(sample.blocks) for sample in broken.samples)
    # Half a line is what a kill may leave.
    with path.open("a") as file:
        file.write('{"at": ["128')
    second = FakeDevice(dict(labels))
    whole, journal = measure(second, "same")
    assert whole.failure is None and journal.interruptions == 1
    assert len(second.journal) == 2 * PROTOCOL.rounds - recorded
    for sample in whole.samples:
        assert sorted(sample.blocks) == list(range(PROTOCOL.rounds))
        assert sample.runs == sum(len(block) for block in sample.blocks.values())
    # The order of the rounds that are left is what it would have been.
    undisturbed = FakeDevice(dict(labels))
    _compare(undisturbed)
    assert second.journal == undisturbed.journal[recorded:]
    third = FakeDevice(dict(labels))
    measure(third, "something else")
    assert len(third.journal) == 2 * PROTOCOL.rounds
    journal.close()
    assert not path.exists()


def test_a_pass_runs_every_input_once() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.5})
    protocol = Protocol(passes=2, max_s=3600, rounds=4)
    jobs = [Job(label, "onnxruntime", Path(label), 1, [{}] * 5) for label in device.seconds]
    for sample in compare(jobs, device, protocol, seed=0).samples:
        assert sample.runs == 10
        assert [len(block) for _, block in sorted(sample.blocks.items())] == [2, 3, 2, 3]
    few = protocol.turns(1)
    assert [block.runs for block in few] == [1, 1]


def test_a_sustained_run_is_told_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("benchmark.measure.sampler.time.monotonic", lambda: clock[0])
    device = FakeDevice({"a": 0.01, "b": 0.02})
    turn = FakeTimer.turn

    def heat(timer: FakeTimer, block: Block) -> Turn:
        found = turn(timer, block)
        clock[0] += found.duration_s
        device.seconds[timer._label] *= 1.1 if block.min_s == 30 else 1
        return found

    monkeypatch.setattr(FakeTimer, "turn", heat)
    protocol = PROTOCOL.model_copy(update={"sustained_s": 600})
    jobs = [Job(label, "onnxruntime", Path(label), 1, []) for label in device.seconds]
    for sample in compare(jobs, device, protocol, seed=0).samples:
        stretches = sample.stretches
        assert len(stretches) >= 19 and stretches[-1].end_s >= 600
        assert [s.start_s for s in stretches[1:]] == [s.end_s for s in stretches[:-1]]
        assert stretches[-1].p50 == pytest.approx(stretches[0].p50 * 1.1 ** (len(stretches) - 1))


def test_models_get_fresh_processes_for_parts_of_the_rounds() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.02})
    opened: list[int] = []
    seen: list[int] = []
    protocol = PROTOCOL.model_copy(update={"processes": 3})
    jobs = [Job(label, "onnxruntime", Path(label), 1, []) for label in device.seconds]
    start = FakeDevice.open

    def count(self: FakeDevice, job: Job) -> Timer:
        opened.append(len(device.journal))
        return start(self, job)

    observer = Observer(finish=lambda number, _: seen.append(number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeDevice, "open", count)
        found = compare(jobs, device, protocol, seed=0, observer=observer)
    # Eight rounds of two models: 2, 3 and 3, each in processes of its own.
    assert opened == [0, 0, 4, 4, 10, 10]
    assert found.processes == 3 and seen == [0, 1]
    for sample in found.samples:
        assert sorted(sample.blocks) == list(range(8))
    # The order of turns does not depend on how often processes are begun anew.
    once = FakeDevice(dict(device.seconds))
    _compare(once)
    assert once.journal == device.journal
    assert [list(protocol.part(n, 3)) for n in range(3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]


def test_all_models_are_alive_while_turns_are_taken() -> None:
    device = FakeDevice({"a": 0.01, "b": 0.01})
    seen = []
    jobs = [Job(label, "onnxruntime", Path(label), 1, []) for label in device.seconds]
    observer = Observer(progress=lambda _: seen.append(len(device.open_now)))
    compare(jobs, device, PROTOCOL, seed=0, observer=observer)
    assert seen == [2] * PROTOCOL.rounds
    assert device.open_now == []


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_reach_their_minimum_in_their_rounds(name: str) -> None:
    protocol = PRESETS[name]
    if protocol.passes is not None:
        assert sum(block.runs for block in protocol.turns(1500)) == protocol.passes * 1500
        return
    assert protocol.turn.runs * protocol.rounds >= protocol.min_runs
    assert protocol.turn.min_s * protocol.rounds >= protocol.min_s
    assert protocol.max_s > protocol.min_s
