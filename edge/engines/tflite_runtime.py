"""tflite-runtime 2.14, the runtime of older phones, in an environment and a process of its own.

It needs Python 3.11 or older and numpy 1, so it cannot be loaded beside current libraries; a
child process also turns its crashes into errors.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from edge.engines import legacy_worker
from edge.engines.base import Array, Availability, Engine, Session
from edge.errors import EngineError

_VARIABLE = "EDGE_LEGACY_PYTHON"
_REMEDY = "run make setup where Python 3.9-3.11 is installed on Linux"
_CLOSE_GRACE_S = 2.0
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
        self._child: _Child | None = _Child(python)
        request = {"op": "open", "path": str(path.resolve()), "threads": threads}
        try:
            self._ask("load", request, {})
        except EngineError:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the child; None once the session has ended."""
        return self._child.pid if self._child else None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, int32 of shape (1, length).

        The signature of the file that takes these names and shapes computes them. Raises
        EngineError.
        """
        return self._ask("run", {"op": "run"}, inputs)

    def close(self) -> None:
        child, self._child = self._child, None
        if child:
            child.stop(grace_s=_CLOSE_GRACE_S)

    def _ask(
        self, action: str, request: Mapping[str, object], arrays: Mapping[str, Array]
    ) -> dict[str, Array]:
        child = self._child
        if child is None:
            raise EngineError(f"the tflite-runtime session of {self._path} has ended: open another")
        failed = f"tflite-runtime could not {action} {self._path}"
        try:
            answer, outputs = child.exchange(request, arrays, self._timeout_s)
        except TimeoutError:
            self._abandon(child)
            raise EngineError(
                f"{failed} within {self._timeout_s:g} s: its process was stopped"
            ) from None
        except (EOFError, OSError):
            raise EngineError(f"{failed}: {self._abandon(child, grace_s=_CLOSE_GRACE_S)}") from None
        except BaseException:
            self._abandon(child)  # a late answer would be taken for the next request's
            raise
        if "error" in answer:
            raise EngineError(f"{failed}: {' '.join(answer['error'].split())[:300]}")
        return outputs

    def _abandon(self, child: _Child, grace_s: float = 0.0) -> str:
        self._child = None
        return child.stop(grace_s=grace_s)


class _Child:
    """The child process and the two pipes to it; an exchange has a deadline."""

    def __init__(self, python: Path) -> None:
        # -I: the script's folder, where this file is called `tflite_runtime`, is not searched.
        command = [str(python), "-I", legacy_worker.__file__]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        except OSError as error:
            self._log.close()
            raise EngineError(
                f"{python} cannot be started ({error.strerror}): {_REMEDY}, or correct {_VARIABLE}"
            ) from None
        assert self._process.stdin and self._process.stdout
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        # A write to a stopped process must meet its deadline, not wait for room in the pipe.
        os.set_blocking(self._requests.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exchange(
        self, request: Mapping[str, object], arrays: Mapping[str, Array], timeout_s: float
    ) -> tuple[legacy_worker.Header, legacy_worker.Arrays]:
        """Send a request and wait for its answer; raises TimeoutError, EOFError or OSError."""
        deadline = time.monotonic() + timeout_s
        message = memoryview(legacy_worker.encode(request, arrays))
        while message:
            _wait(self._requests, select.POLLOUT, deadline)
            message = message[os.write(self._requests.fileno(), message) :]
        return legacy_worker.decode(lambda size: self._read(size, deadline))

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < size:
            _wait(self._answers, select.POLLIN, deadline)
            part = os.read(self._answers.fileno(), size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def stop(self, *, grace_s: float) -> str:
        """Let the process end by itself within `grace_s`, else kill it; says how it ended."""
        self._requests.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            code = self._process.wait()
            self._answers.close()
            last_line = self._last_line()
            self._log.close()
        if code < 0:
            return f"its process ended with {signal.Signals(-code).name}"
        return f"its process ended with status {code}" + (f" ({last_line})" if last_line else "")

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _wait(stream: IO[bytes], event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(stream, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
