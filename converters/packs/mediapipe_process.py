"""MediaPipe's own TextClassifier, in an environment and a process of its own.

Its package brings OpenCV and much else that has no place beside the converters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Self

from edge.engines.base import Array
from edge.engines.environment import Environment, worker_command
from edge.errors import EngineError
from edge.process.link import Ended, Link, NoAnswer, Refused

ENGINE = "mediapipe"
ENVIRONMENT = Environment(
    title="MediaPipe's environment",
    folder=".venv-mediapipe",
    variable="EDGE_MEDIAPIPE_PYTHON",
    module="mediapipe.tasks.python.text",
    distribution="mediapipe",
    remedy="run scripts/setup.sh mediapipe .venv-mediapipe",
    timeout_s=120.0,
)
_WORKER = Path(__file__).with_name("mediapipe_worker.py")


class TextClassifier:
    """One file loaded by MediaPipe in a child process. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, *, timeout_s: float = 120.0) -> None:
        """Start the process and load `path`; raises EngineError, one line, when that fails.

        timeout_s: bounds loading and each text.
        """
        python = ENVIRONMENT.find_python()
        if python is None:
            raise EngineError(f"MediaPipe's environment is not set up: {ENVIRONMENT.remedy}")
        self._path = path
        self._timeout_s = timeout_s
        try:
            self._link = Link(worker_command(python, _WORKER))
        except OSError as error:
            raise EngineError(
                f"{python} cannot be started ({error.strerror}): correct {ENVIRONMENT.variable}"
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
