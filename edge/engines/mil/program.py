"""The Core ML engine for machines other than Macs: saved MIL programs, executed in numpy.

A program is a list of operators over named tensors. Each runs in 32-bit floats and its results are
rounded to the element types that the program declares, so precision loss and overflow of 16-bit
floats show as on a phone. This verifies neither that Apple's compiler accepts the program nor the
numerics of the Neural Engine, which may also accumulate in 16 bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.loader import Loaded, load_program
from edge.engines.mil.package import Value
from edge.engines.mil.steps import Step
from edge.engines.mil.threads import blas_threads
from edge.errors import EngineError


class MilProgram:
    """A saved MIL program, executed operator by operator in numpy.

    inputs, outputs: names, in the program's order. input_shapes: the size of each dimension, None
    where it may vary. input_dtypes, output_dtypes: MIL's names (int32, fp16, fp32 ...).
    operators: count of each kind of operator in the program, constants included.
    constants: weights and parameters by name, read-only. steps: the operators to run, in order.
    """

    def __init__(self, loaded: Loaded, *, threads: int = 1) -> None:
        self._inputs = {entry.name: entry for entry in loaded.inputs}
        self._outputs = loaded.outputs
        self.constants = loaded.constants
        self.steps = loaded.steps
        self._threads = threads
        self.operators: Counter[str] = loaded.operators

    @classmethod
    def load(cls, path: Path, *, threads: int = 1) -> MilProgram:
        """Read a .mlpackage folder and rebuild its weights; runs use `threads` CPU threads.

        Raises EngineError for a damaged package, and for an operator or a parameter that has no
        implementation here, before anything runs.
        """
        return cls(load_program(Path(path)), threads=threads)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {name: entry.type.shape for name, entry in self._inputs.items()}

    @property
    def input_dtypes(self) -> dict[str, str]:
        return {name: entry.type.element.name for name, entry in self._inputs.items()}

    @property
    def output_dtypes(self) -> dict[str, str]:
        return {name: declared.element.name for name, declared in self._outputs.items()}

    def run(self, inputs: Mapping[str, Any], *, round_fp16: bool = True) -> dict[str, Array]:
        """Return outputs by name, in their declared types, for inputs by name.

        round_fp16: round every result declared fp16; otherwise such results keep 32 bits, outputs
        included, which shows the part of the error caused by rounding.
        Overflow gives inf and nan, as on a device. Raises EngineError for a missing or unknown
        input, a shape or type the program does not accept, or an operator that fails.
        """
        values = self.execute(inputs, lambda step, held: step.run(held, round_fp16=round_fp16))
        return {
            name: self._finished(name, value, round_fp16=round_fp16)
            for name, value in values.items()
        }

    def execute(
        self, inputs: Mapping[str, Any], run: Callable[[Step, dict[str, Value]], None]
    ) -> dict[str, Array]:
        """Return outputs by name in held types, calling `run` with each step and the tensors."""
        self._check_names(inputs)
        values = dict(self.constants)
        with np.errstate(all="ignore"), blas_threads(self._threads):
            for name, entry in self._inputs.items():
                values[name] = entry.accept(inputs[name])
            for step in self.steps:
                run(step, values)
                for name in step.released:
                    del values[name]
        return {name: values[name] for name in self._outputs}

    def _finished(self, name: str, value: Array, *, round_fp16: bool) -> Array:
        element = self._outputs[name].element
        dtype = element.held if element.name == "fp16" and not round_fp16 else element.stored
        # A copy: the value may be an input, or part of the program.
        return np.array(value, dtype)

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        missing = [name for name in self._inputs if name not in inputs]
        unknown = [name for name in inputs if name not in self._inputs]
        if missing or unknown:
            wrong = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is unknown"
            raise EngineError(f"input {wrong}: the program takes {', '.join(self._inputs)}")
