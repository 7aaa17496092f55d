"""ONNX's own reference implementation: every standard operator in numpy, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.base import Array, Availability, Engine, Session, installed
from edge.errors import EngineError


class OnnxReference(Engine):
    """Run .onnx files of standard operators as the standard defines them; slow, one thread."""

    name = "onnx-reference"
    format = "onnx"
    module = "onnx"
    kind = "interpreted"

    def availability(self) -> Availability:
        return installed("onnx", "onnx")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        from onnx.reference import ReferenceEvaluator

        try:
            inner = ReferenceEvaluator(str(path), new_ops=[_dequantize_linear()])
        except Exception as error:  # whatever a parser of arbitrary bytes raises
            raise EngineError(f"onnx-reference cannot load {path}: {_line(error)}") from None
        return _Session(inner, path)


class _Session(Session):
    def __init__(self, inner: Any, path: Path) -> None:
        self._inner: Any = inner
        self._path = path

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._inner.run(None, dict(inputs))
        except Exception as error:  # operators raise whatever numpy does
            raise EngineError(f"onnx-reference failed on {self._path}: {_line(error)}") from None
        names = self._inner.output_names
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        self._inner = None


def _dequantize_linear() -> type[Any]:
    """Return DequantizeLinear of opsets 10-18, missing in onnx; 19 adds 8-bit floats."""
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19

    class DequantizeLinear(DequantizeLinear_19):
        op_domain = ""

        def _run(
            self, x: Array, scale: Array, zero: Array | None = None, axis: int = 1, **_: Any
        ) -> Any:
            # The class has no version, so newer attributes are passed too, with their defaults.
            return super()._run(x, scale, zero, axis)

    return DequantizeLinear


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
