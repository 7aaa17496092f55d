"""What every device offers: describe yourself, and time this model."""

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
class Reading:
    """Texts for the whole way from text to output.

    tokenizer: a `tokenizer.json`; pad_id: of it. lengths: those that texts are padded to, one of
    them or, if `dynamic`, anything up to the last; longer texts are cut. names: of the inputs.
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

    engine: the device's name for what runs it. path: the artifact, or a checkpoint folder.
    feeds: run one after another, name -> int32 of shape (batch, length).
    reading: texts to time from end to end; None where no tokenizer belongs to the model.
    """

    label: str
    engine: str
    path: Path
    threads: int
    feeds: Sequence[Feed]
    reading: Reading | None = None


@dataclass(frozen=True)
class Loaded:
    """Cold start: opening the model, then its first inference.

    threads, provider: what it really runs on, where the device says so; nodes: how many nodes of
    the graph run where. library_bytes: size of the engine's own libraries. notes: what a reader of
    the figures should know, in words.
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
    """What the warm-up took. notes: as in `Loaded`."""

    runs: int
    duration_s: float
    notes: tuple[str, ...] = ()

    @property
    def run_s(self) -> float:
        """Seconds a run, on average."""
        return self.duration_s / self.runs


@dataclass(frozen=True)
class Turn:
    """One block of recorded runs.

    raw_ns: one duration a run; or, if not `single`, their median alone, of `runs`.
    duration_s: of the whole turn, the unrecorded run included.
    processor_s: processor time that the turn used; None where that cannot be told.
    """

    raw_ns: list[int]
    duration_s: float
    processor_s: float | None = None
    single: bool = True
    runs: int | None = None

    @property
    def count(self) -> int:
        """Recorded runs."""
        return self.runs if self.runs is not None else len(self.raw_ns)


@dataclass(frozen=True)
class StageTimes:
    """Nanoseconds of each text: tokenising, inference, and both with what lies between."""

    tokenize_ns: list[int] = field(default_factory=list)
    infer_ns: list[int] = field(default_factory=list)
    e2e_ns: list[int] = field(default_factory=list)


class ModelRefused(MeasurementError):
    """The device cannot load this model; it may well load others."""


class Timer(ABC):
    """One model in a process of its own, ready to be timed. Close it, or use it in `with`.

    Every method raises MeasurementError, one line, when the model fails or the device is gone.
    Those that are not abstract return None where the device has no way to tell.
    """

    @abstractmethod
    def load(self) -> Loaded:
        """Open the model and run it once; raises ModelRefused where others may still go on."""

    @abstractmethod
    def warm(self, protocol: Protocol) -> Warmed:
        """Run without recording until the protocol's warm-up is done."""

    @abstractmethod
    def turn(self, block: Block) -> Turn:
        """One unrecorded run and a block of recorded ones."""

    @abstractmethod
    def memory(self) -> Memory | None:
        """Memory of the model's process so far."""

    def answers(self, feeds: Sequence[Feed]) -> Iterable[dict[str, Array]] | None:
        """The outputs of each feed by name, each of shape (batch, ...)."""
        return None

    def stages(self) -> StageTimes | None:
        """The texts of the job's reading from end to end, one run each."""
        return None

    def profile(self) -> tuple[Operator, ...] | None:
        """Operators of an inference, the slowest first, from runs of their own."""
        return None

    def instructions(self) -> int | None:
        """Instructions that one inference takes, where an emulator counts them."""
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

    kind: what `--device` calls it. address: which one, None where there is only one.
    restarts: whether a model can be loaded again without much ado, for a fresh process.
    """

    kind: ClassVar[str]
    restarts: ClassVar[bool] = False
    address: str | None = None

    @property
    def interruptions(self) -> int:
        """How often it went away and came back while it was in use."""
        return 0

    def engine(self, format_name: str, runtimes: Sequence[str]) -> str:
        """What runs an artifact whose target's engines are `runtimes`, the main one first."""
        return runtimes[0]

    @abstractmethod
    def availability(self, engine: str) -> Availability:
        """Whether an engine can be used there; if not, why, and what would change that."""

    @abstractmethod
    def describe(self) -> DeviceInfo:
        """What it is; values that cannot be found out are None."""

    @abstractmethod
    def conditions(self) -> Conditions:
        """Its state at this moment: load, clock, temperature."""

    def affinity(self, threads: int) -> tuple[int, ...] | None:
        """The processors that a model with so many threads may use; None where unknown, or all."""
        return None

    def ready(self) -> None:  # noqa: B027 - most devices are there when they are made
        """Wait until models can be opened there; raises MeasurementError when that takes too long.

        Called before anything that draws on the terminal.
        """

    @abstractmethod
    def open(self, job: Job) -> Timer:
        """Start a process for a model; `load` comes next."""

    def close(self) -> None:  # noqa: B027 - most devices have nothing to take away
        """Take away whatever was put there; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Found:
    """A device that could be used, or why not.

    spec: what `--device` takes. formats: those it can time now. reason: why none, with the remedy.
    """

    spec: str
    title: str
    formats: tuple[str, ...] = ()
    reason: str | None = None
