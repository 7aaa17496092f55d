"""What every device offers: describe yourself, and time this model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from benchmark.config import Protocol
from benchmark.schema import Conditions, DeviceInfo, Memory
from edge.wire import Array


@dataclass(frozen=True)
class Job:
    """A model to time.

    engine: a name of `edge.engines`. path: the artifact, or a checkpoint folder.
    inputs: name -> int32 of shape (n, length), run one after another at batch 1.
    """

    label: str
    engine: str
    path: Path
    threads: int
    inputs: Mapping[str, Array]


@dataclass(frozen=True)
class Loaded:
    """Cold start: opening the model, then its first inference."""

    load_ms: float
    first_ms: float


@dataclass(frozen=True)
class Warmed:
    """What the warm-up took."""

    runs: int
    duration_s: float

    @property
    def run_s(self) -> float:
        """Seconds a run, on average."""
        return self.duration_s / self.runs


@dataclass(frozen=True)
class Turn:
    """One block of recorded runs.

    raw_ns: one duration a run. duration_s: of the whole turn, the unrecorded run included.
    processor_s: processor time that the turn used.
    """

    raw_ns: list[int]
    duration_s: float
    processor_s: float


class Timer(ABC):
    """One model in a process of its own, ready to be timed. Close it, or use it in `with`.

    Every method raises MeasurementError, one line, when the model fails or the device is gone.
    """

    @abstractmethod
    def load(self) -> Loaded:
        """Open the model and run it once."""

    @abstractmethod
    def warm(self, protocol: Protocol) -> Warmed:
        """Run without recording until the protocol's warm-up is done."""

    @abstractmethod
    def turn(self, protocol: Protocol) -> Turn:
        """One unrecorded run and one block of recorded ones."""

    @abstractmethod
    def memory(self) -> Memory:
        """Resident memory of the model's process so far."""

    @abstractmethod
    def close(self) -> None:
        """End the process; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Device(ABC):
    """A machine that can time artifacts."""

    name: ClassVar[str]

    @abstractmethod
    def describe(self) -> DeviceInfo:
        """What it is; values that cannot be found out are None."""

    @abstractmethod
    def conditions(self) -> Conditions:
        """Its state at this moment: load, clock, temperature."""

    @abstractmethod
    def open(self, job: Job) -> Timer:
        """Start a process for a model; `load` comes next."""
