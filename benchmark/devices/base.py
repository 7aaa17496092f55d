"""Interfaces of devices and of timers, which time one model on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from benchmark.config import Block, Protocol
from benchmark.measure.inputs import Feed
from benchmark.schema import Conditions, DeviceInfo, Memory, Operator
from edge.engines.base import Availability
from edge.errors import MeasurementError
from edge.process.wire import Array


@dataclass(frozen=True)
class TextInputs:
    """Texts to time from end to end.

    tokenizer: a `tokenizer.json`; pad_id: its padding id. lengths: the lengths to pad texts to, or,
    if `dynamic`, the shortest and the longest; longer texts are truncated. names: of the inputs.
    """

    tokenizer: Path
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    lengths: tuple[int, ...]
    dynamic: bool
    pad_id: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A model to time.

    engine: the device's name of the engine. path: the artifact, or a checkpoint folder.
    feeds: inputs, run in turn, name -> int32 of shape (batch, length).
    text_inputs: texts to time from end to end; None for a model without a tokenizer.
    """

    label: str
    engine: str
    path: Path
    threads: int
    feeds: Sequence[Feed]
    text_inputs: TextInputs | None = None


@dataclass(frozen=True)
class Loaded:
    """Cold start: opening the model, then its first inference.

    threads, provider: in actual use, if the device reports them. nodes: number of graph nodes by
    provider. library_bytes: size of the engine's libraries. notes: reservations about the figures.
    """

    load_ms: float
    first_ms: float
    threads: int | None = None
    provider: str | None = None
    nodes: dict[str, int] | None = None
    library_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Warmed:
    """Runs and duration of the warm-up. notes: as in `Loaded`."""

    runs: int
    duration_s: float
    notes: tuple[str, ...] = ()

    @property
    def run_s(self) -> float:
        """Mean seconds per run."""
        return self.duration_s / self.runs


@dataclass(frozen=True)
class Turn:
    """One block of recorded runs.

    raw_ns: the duration of each run; if not `single`, only their median over `runs` runs.
    duration_s: of the whole turn, the unrecorded run included.
    processor_s: processor time of the turn; None if unknown.
    """

    raw_ns: list[int]
    duration_s: float
    processor_s: float | None = None
    single: bool = True
    runs: int | None = None

    @property
    def count(self) -> int:
        """Number of recorded runs."""
        return self.runs if self.runs is not None else len(self.raw_ns)


@dataclass(frozen=True)
class StageTimes:
    """Nanoseconds of each text: tokenization, inference, and end to end."""

    tokenize_ns: list[int] = field(default_factory=list)
    infer_ns: list[int] = field(default_factory=list)
    e2e_ns: list[int] = field(default_factory=list)


class ModelRefused(MeasurementError):
    """The device cannot load this model, but may load others."""


class Timer(ABC):
    """One model in a process of its own, ready to be timed. Close it, or use it in `with`.

    Every method raises MeasurementError, one line, if the model fails or the device is gone.
    Methods that are not abstract return None if the device does not support them.
    """

    @abstractmethod
    def load(self) -> Loaded:
        """Open the model and run it once; raises ModelRefused for a model that cannot be loaded."""

    @abstractmethod
    def warm(self, protocol: Protocol) -> Warmed:
        """Run without recording until the protocol's warm-up is done."""

    @abstractmethod
    def turn(self, block: Block) -> Turn:
        """Run once unrecorded, then a block of recorded runs."""

    @abstractmethod
    def memory(self) -> Memory | None:
        """Return the memory of the model's process so far."""

    def answers(self, feeds: Sequence[Feed]) -> Iterable[dict[str, Array]] | None:
        """Return the outputs of each feed by name, each of shape (batch, ...)."""
        return None

    def stages(self) -> StageTimes | None:
        """Time the texts of the job's text_inputs from end to end, one run each."""
        return None

    def profile(self) -> tuple[Operator, ...] | None:
        """Profile the operators of an inference, the slowest first, in separate runs."""
        return None

    def instructions(self) -> int | None:
        """Return the instructions of one inference, counted by an emulator."""
        return None

    @abstractmethod
    def close(self) -> None:
        """End the process; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Device(ABC):
    """A machine that can time artifacts. Close it, or use it in `with`.

    kind: its name in `--device`. address: which one, None if there is only one.
    restarts: True if a model can be loaded again at low cost, for a fresh process.
    """

    kind: ClassVar[str]
    restarts: ClassVar[bool] = False
    address: str | None = None

    @property
    def interruptions(self) -> int:
        """Number of times that the device disconnected and came back during use."""
        return 0

    def engine(self, format_name: str, runtimes: Sequence[str]) -> str:
        """Return the engine of an artifact; runtimes: its target's engines, the main one first."""
        return runtimes[0]

    @abstractmethod
    def availability(self, engine: str) -> Availability:
        """Return the availability of an engine there; if unavailable, with reason and remedy."""

    @abstractmethod
    def describe(self) -> DeviceInfo:
        """Describe the device; unknown values are None."""

    @abstractmethod
    def conditions(self) -> Conditions:
        """Return its current state: load, clock, temperature."""

    def affinity(self, threads: int) -> tuple[int, ...] | None:
        """Return the processors for a model with so many threads; None if unknown, or all."""
        return None

    def ready(self) -> None:  # noqa: B027 - most devices are ready once constructed
        """Wait until the device can open models; raises MeasurementError after its timeout.

        Called before a progress bar is drawn.
        """

    @abstractmethod
    def open(self, job: Job) -> Timer:
        """Start a process for a model; call `load` next."""

    def close(self) -> None:  # noqa: B027 - most devices have nothing to remove
        """Remove all files that were put there; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class DiscoveredDevice:
    """A device in a listing.

    spec: value for `--device`. formats: formats it can time now. reason: reason for timing none,
    with the remedy.
    """

    spec: str
    title: str
    formats: tuple[str, ...] = ()
    reason: str | None = None
