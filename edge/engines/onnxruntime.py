"""ONNX Runtime, CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.engines.base import Array, Availability, Engine, Session, installed
from edge.errors import EngineError


def load() -> Any:
    """Import `onnxruntime` with its telemetry disabled.

    The telemetry would report loaded models, and leave files in TMPDIR.
    """
    # onnxruntime reads the variable on import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    # For programs that imported onnxruntime earlier.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxRuntime(Engine):
    """Run .onnx files with ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    format = "onnx"
    module = "onnxruntime"

    def availability(self) -> Availability:
        return installed("onnxruntime", "onnxruntime")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        onnxruntime = load()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            inner = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind raises a dozen unrelated classes
            raise EngineError(f"ONNX Runtime cannot load {path}: {_line(error, path)}") from None
        return _Session(inner, path)


class _Session(Session):
    def __init__(self, inner: Any, path: Path) -> None:
        self._inner: Any = inner
        self._path = path
        self._outputs = [output.name for output in inner.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._inner.run(self._outputs, dict(inputs))
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed on {self._path}: {_line(error, self._path)}"
            ) from None
        # Without `strict`, which Python 3.9 does not know: this file also runs on boards.
        return dict(zip(self._outputs, values))  # noqa: B905

    def close(self) -> None:
        self._inner = None


def _line(error: Exception, path: Path) -> str:
    # The message repeats the path, which may be too long to leave space for the reason.
    return " ".join(str(error).replace(str(path), path.name).split())[:300]
