"""Core ML: Apple's own engine on a Mac, and elsewhere an interpreter of the saved MIL program."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.console import hush
from edge.engines.base import Array, Availability, Engine, Session, installed
from edge.errors import EngineError


class CoreML(Engine):
    """Run .mlpackage files with Core ML, on macOS only."""

    name = "coreml"
    format = "coreml"
    module = "coremltools"

    def availability(self) -> Availability:
        if platform.system() != "Darwin":
            return Availability(None, "Core ML runs on Apple systems only", "use a Mac")
        return installed("coremltools", "coremltools")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        with hush():
            import coremltools

            try:
                # CPU only: the comparison must not depend on the compute units of this Mac.
                model = coremltools.models.MLModel(
                    str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY
                )
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                raise EngineError(f"Core ML cannot load {path}: {reason}") from None
        return _Predictor(model, path)


class _Predictor(Session):
    def __init__(self, model: Any, path: Path) -> None:
        self._model = model
        self._path = path

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            outputs: dict[str, Array] = self._model.predict(dict(inputs))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EngineError(f"Core ML failed on {self._path}: {reason}") from None
        return outputs

    def close(self) -> None:
        self._model = None


class MilInterpreter(Engine):
    """Execute the saved MIL program in numpy, rounding to 16 bits where it declares fp16.

    This verifies the program's outputs, not that Apple's compiler accepts it, nor its speed.
    """

    name = "mil-interpreter"
    format = "coreml"
    kind = "interpreted"

    def availability(self) -> Availability:
        return installed("coremltools", "coremltools")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        from edge.engines.mil.program import MilProgram

        return _Interpreted(MilProgram.load(path, threads=threads))


class _Interpreted(Session):
    def __init__(self, program: Any) -> None:
        self._program = program

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs: dict[str, Array] = self._program.run(inputs)
        return outputs

    def close(self) -> None:
        self._program = None
