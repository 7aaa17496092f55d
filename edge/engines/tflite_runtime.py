"""tflite-runtime 2.14, the runtime of older phones, in an environment and a process of its own.

It needs Python 3.11 or older and numpy 1, so it cannot be loaded beside current libraries; a
child process also turns its crashes into errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.engines.base import Array, Availability, Engine, Session
from edge.engines.environment import Environment, worker_command
from edge.errors import EngineError
from edge.process.link import Ended, Link, NoAnswer, Refused

ENVIRONMENT = Environment(
    title="its environment",
    folder=".venv-legacy",
    variable="EDGE_LEGACY_PYTHON",
    module="tflite_runtime.interpreter",
    distribution="tflite-runtime",
    remedy="run make setup where Python 3.9-3.11 is installed on Linux",
    timeout_s=60.0,
)
_WORKER = Path(__file__).with_name("legacy_worker.py")


class TfliteRuntime(Engine):
    """Run .tflite files with tflite-runtime 2.14."""

    name = "tflite-runtime"
    format = "tflite"

    def availability(self) -> Availability:
        return ENVIRONMENT.availability()

    def open(self, path: Path, *, threads: int = 1) -> Session:
        return TfliteRuntimeSession(path, threads=threads)


class TfliteRuntimeSession(Session):
    """One .tflite file loaded in a child process.

    timeout_s: limit for loading and for each run. After a crash, a time-out or an interrupt before
    the reply, the process is stopped and the session is closed.
    """

    def __init__(
        self, path: Path, *, threads: int = 1, python: Path | None = None, timeout_s: float = 120.0
    ) -> None:
        """Start the process and load `path`; raises EngineError, one line, when that fails."""
        python = python or ENVIRONMENT.find_python()
        if python is None:
            raise EngineError(f"tflite-runtime is not set up here: {ENVIRONMENT.remedy}")
        self._path = path
        self._timeout_s = timeout_s
        self._link = _start(python)
        request = {"do": "open", "path": str(path.resolve()), "threads": threads}
        try:
            self._request("load", request, {})
        except EngineError:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The process id of the child; None once the session is closed."""
        return None if self._link.closed else self._link.pid

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return outputs by name for inputs by name, int32 of shape (1, length).

        They come from the signature of the file with these names and shapes. Raises EngineError.
        """
        return self._request("run", {"do": "run"}, inputs)

    def close(self) -> None:
        self._link.close()

    def _request(
        self, action: str, request: dict[str, object], arrays: Mapping[str, Array]
    ) -> dict[str, Array]:
        if self._link.closed:
            raise EngineError(f"the tflite-runtime session of {self._path} has ended: open another")
        failed = f"tflite-runtime could not {action} {self._path}"
        try:
            _, outputs = self._link.request(request, arrays, timeout_s=self._timeout_s)
        except Refused as refused:
            raise EngineError(f"{failed}: {refused}") from None
        except NoAnswer:
            raise EngineError(
                f"{failed} within {self._timeout_s:g} s: its process was stopped"
            ) from None
        except Ended as end:
            raise EngineError(f"{failed}: its process {_end_reason(end)}") from None
        return outputs


def _start(python: Path) -> Link:
    try:
        return Link(worker_command(python, _WORKER))
    except OSError as error:
        raise EngineError(
            f"{python} cannot be started ({error.strerror}): {ENVIRONMENT.remedy}, "
            f"or correct {ENVIRONMENT.variable}"
        ) from None


def _end_reason(end: Ended) -> str:
    if end.signal_name:
        return f"ended with {end.signal_name}"
    if end.code is None:
        return "closed its output without an answer"
    return f"ended with status {end.code}" + (f" ({end.last_line})" if end.last_line else "")
