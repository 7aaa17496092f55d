"""The interface of engines: availability, and running a model file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy.typing as npt
from typing_extensions import Self

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Availability:
    """Availability of an engine: its version, or the reason it is missing and the remedy."""

    version: str | None
    reason: str | None = None
    remedy: str | None = None

    @property
    def available(self) -> bool:
        return self.reason is None


class Session(ABC):
    """One loaded model. Close it, or use it in a `with` block."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return outputs by name for inputs by name, int32 of shape (1, length).

        Raises EngineError when the engine refuses or fails.
        """

    def placement(self) -> dict[str, int] | None:
        """Return the number of graph nodes per execution provider; None if unknown."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the session; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Engine(ABC):
    """An engine that runs artifacts of one format.

    module: the Python module of the engine; None when it runs in another process.
    kind: "native" runs the file as an app would; "interpreted" executes the file's operators with
    another implementation, which verifies its outputs but not its speed.
    """

    name: ClassVar[str]
    format: ClassVar[str]
    module: ClassVar[str | None] = None
    kind: ClassVar[Literal["native", "interpreted"]] = "native"

    @abstractmethod
    def availability(self) -> Availability:
        """Check the availability, without loading a model."""

    @abstractmethod
    def open(self, path: Path, *, threads: int = 1) -> Session:
        """Load a model file; raises EngineError, one line, when it cannot be loaded."""


def installed(module: str, distribution: str, remedy: str | None = None) -> Availability:
    """Return the availability of an engine that is a Python package."""
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return Availability(
            None, f"{distribution} is not installed", remedy or f"pip install {distribution}"
        )
    return Availability(importlib.metadata.version(distribution))
