"""MediaPipe's own TextClassifier, in an environment and a process of its own.

Its package brings OpenCV and much else that has no place beside the converters.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typing_extensions import Self

from edge import wire
from edge.engines.base import Array, Availability
from edge.errors import EngineError
from edge.link import Ended, Link, NoAnswer, Refused

ENGINE = "mediapipe"
_VARIABLE = "EDGE_MEDIAPIPE_PYTHON"
_REMEDY = "run scripts/setup.sh mediapipe .venv-mediapipe"
_WORKER = Path(__file__).with_name("mediapipe_worker.py")
_LOOK = """
import importlib.metadata
import mediapipe.tasks.python.text
print(importlib.metadata.version("mediapipe"))
"""


def find_python() -> Path | None:
    """MediaPipe's Python: EDGE_MEDIAPIPE_PYTHON, else `.venv-mediapipe` beside our environment.

    A path given by EDGE_MEDIAPIPE_PYTHON is returned as it is, whether it works or not.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return Path(named)
    beside = Path(sys.prefix).parent / ".venv-mediapipe" / "bin" / "python"
    return beside if beside.exists() else None


def availability() -> Availability:
    """Whether MediaPipe can be run here; if not, why, and the command that adds it."""
    python = find_python()
    if python is None:
        return Availability(None, "MediaPipe's environment is not set up", _REMEDY)
    found = _version(python)
    if found is None:
        remedy = f"{_REMEDY}, or correct {_VARIABLE}"
        return Availability(None, f"{python} cannot import mediapipe", remedy)
    return Availability(found)


class TextClassifier:
    """One file loaded by MediaPipe in a child process. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, *, timeout_s: float = 120.0) -> None:
        """Start the process and load `path`; raises EngineError, one line, when that fails.

        timeout_s: bounds loading and each text.
        """
        python = find_python()
        if python is None:
            raise EngineError(f"MediaPipe's environment is not set up: {_REMEDY}")
        self._path = path
        self._timeout_s = timeout_s
        try:
            self._link = Link([str(python), "-I", str(_WORKER), wire.__file__])
        except OSError as error:
            raise EngineError(
                f"{python} cannot be started ({error.strerror}): correct {_VARIABLE}"
            ) from None
        try:
            self._ask("load", {"do": "open", "path": str(path.resolve())})
        except BaseException:
            self.close()
            raise

    def scores(self, text: str) -> Array:
        """The classifier's scores of a text, float32 of shape (outputs,); raises EngineError."""
        return self._ask("classify with", {"do": "classify", "text": text})["scores"]

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, action: str, request: dict[str, Any]) -> dict[str, Array]:
        failed = f"MediaPipe could not {action} {self._path.name}"
        try:
            _, outputs = self._link.request(request, timeout_s=self._timeout_s)
        except Refused as refused:
            raise EngineError(f"{failed}: {refused}") from None
        except NoAnswer:
            raise EngineError(f"{failed} within {self._timeout_s:g} s") from None
        except Ended as end:
            last = f" ({end.last_line})" if end.last_line else ""
            raise EngineError(f"{failed}: its process {end}{last}") from None
        return outputs


def _version(python: Path, *, timeout_s: float = 120.0) -> str | None:
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
