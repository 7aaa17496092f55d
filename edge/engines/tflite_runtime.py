"""tflite-runtime 2.14, the runtime of older phones, in an environment and a process of its own.

It needs Python 3.11 or older and numpy 1, so it cannot be loaded beside current libraries; a
child process also turns its crashes into errors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from edge.engines.base import Array, Availability, Engine, Session
from edge.errors import EngineError
from edge.link import Ended, Link, NoAnswer, Refused

_VARIABLE = "EDGE_LEGACY_PYTHON"
_REMEDY = "run make setup where Python 3.9-3.11 is installed on Linux"
_WORKER = Path(__file__).with_name("legacy_worker.py")
_LOOK = """
import importlib.metadata
import tflite_runtime.interpreter
print(importlib.metadata.version("tflite-runtime"))
"""


class TfliteRuntime(Engine):
    """Runs .tflite files with tflite-runtime 2.14."""

    name = "tflite-runtime"
    format = "tflite"

    def availability(self) -> Availability:
        python = find_python()
        if python is None:
            return Availability(None, "its environment is not set up", _REMEDY)
        found = version(python)
        if found is None:
            remedy = f"{_REMEDY}, or correct {_VARIABLE}"
            return Availability(None, f"{python} cannot import tflite_runtime", remedy)
        return Availability(found)

    def open(self, path: Path, *, threads: int = 1) -> Session:
        return TfliteRuntimeSession(path, threads=threads)


def find_python() -> Path | None:
    """The Python of the legacy environment: EDGE_LEGACY_PYTHON, else `.venv-legacy` beside ours.

    A path given by EDGE_LEGACY_PYTHON is returned as it is, whether it works or not.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return Path(named)
    beside = Path(sys.prefix).parent / ".venv-legacy" / "bin" / "python"
    return beside if beside.exists() else None


def version(python: Path, *, timeout_s: float = 60.0) -> str | None:
    """The version of tflite-runtime that `python` imports; None when it cannot."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _LOOK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


class TfliteRuntimeSession(Session):
    """One .tflite file loaded in a child process.

    `timeout_s` bounds loading and each run. When the process itself fails (a crash, a time-out, an
    interrupt before its answer) it is stopped, and the session has ended.
    """

    def __init__(
        self, path: Path, *, threads: int = 1, python: Path | None = None, timeout_s: float = 120.0
    ) -> None:
        """Start the process and load `path`; raises EngineError, one line, when that fails."""
        python = python or find_python()
        if python is None:
            raise EngineError(f"tflite-runtime is not set up here: {_REMEDY}")
        self._path = path
        self._timeout_s = timeout_s
        self._link = _start(python)
        request = {"do": "open", "path": str(path.resolve()), "threads": threads}
        try:
            self._ask("load", request, {})
        except EngineError:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the child; None once the session has ended."""
        return None if self._link.closed else self._link.pid

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, int32 of shape (1, length).

        The signature of the file that takes these names and shapes computes them. Raises
        EngineError.
        """
        return self._ask("run", {"do": "run"}, inputs)

    def close(self) -> None:
        self._link.close()

    def _ask(
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
            raise EngineError(f"{failed}: its process {_how(end)}") from None
        return outputs


def _start(python: Path) -> Link:
    try:
        # -I: the script's folder, where this file is called `tflite_runtime`, is not searched.
        return Link([str(python), "-I", str(_WORKER)])
    except OSError as error:
        raise EngineError(
            f"{python} cannot be started ({error.strerror}): {_REMEDY}, or correct {_VARIABLE}"
        ) from None


def _how(end: Ended) -> str:
    if end.signal_name:
        return f"ended with {end.signal_name}"
    if end.code is None:
        return "closed its output without an answer"
    return f"ended with status {end.code}" + (f" ({end.last_line})" if end.last_line else "")
