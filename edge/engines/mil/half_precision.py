"""Simulation of 16-bit floats in a 32-bit MIL program, without another conversion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.operators import MOVES
from edge.engines.mil.package import Value
from edge.engines.mil.program import MilProgram
from edge.engines.mil.steps import Step, round_to_fp16

_FP16_MAX = float(np.finfo(np.float16).max)
# Larger constants stand for infinity, and may overflow in 16 bits.
_INFINITE = 1e38
# Operators that only rearrange their input, at any width.
FOLLOWERS = frozenset({"expand_dims", "reshape", "squeeze", "transpose"})


class HalfPrecisionProgram:
    """A program in 32-bit floats, run as if some of its operators computed in 16 bits.

    names: the operators that can use 16 bits, in program order. FOLLOWERS have the width of their
    input; an operator with a constant that overflows in 16 bits always stays in 32.
    """

    def __init__(self, program: MilProgram) -> None:
        self._program = program
        self._halves: dict[str, Array] = {}
        floats = {name for name, value in program.constants.items() if _is_float(value)}
        for step in program.steps:
            floats.update(name for name, given in step.results if given.element.held.kind == "f")
        self.names = tuple(
            step.name
            for step in program.steps
            if step.kind not in FOLLOWERS
            and step.kind != "cast"
            and floats & {*step.sources, *_results(step)}
            and not any(map(self._is_too_large, step.sources))
        )

    def extremes(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Return the largest magnitude in each operator's inputs and results; inf if not finite.

        Constants are excluded: they fit, or stand for infinity.
        """
        magnitudes: dict[str, float] = {}

        def run(step: Step, values: dict[str, Value]) -> None:
            step.run(values, round_fp16=False)
            read = [name for name in step.sources if name not in self._program.constants]
            tensors = [values[name] for name in (*read, *_results(step))]
            sizes = [_magnitude(tensor) for tensor in tensors if _is_float(tensor)]
            magnitudes[step.name] = max(sizes, default=0.0)

        self._program.execute(inputs, run)
        return {name: magnitudes[name] for name in self.names}

    def outputs(self, inputs: Mapping[str, Any], wide: Collection[str]) -> dict[str, Array]:
        """Return outputs by name when all operators except those in `wide` compute in 16 bits."""
        narrow = set(self.names) - set(wide)
        rounded: set[str] = set()

        def run(step: Step, values: dict[str, Value]) -> None:
            if step.name not in narrow:
                step.run(values, round_fp16=False)
                return
            local = {name: self._half(name, values[name], rounded) for name in step.sources}
            step.run(local, round_fp16=False)
            for name in _results(step):
                value = local[name]
                if _is_float(value) and step.kind not in MOVES:
                    value = round_to_fp16(value)
                values[name] = value
                rounded.add(name)

        return self._program.execute(inputs, run)

    def cost_bytes(self, wide: Collection[str]) -> dict[str, int]:
        """Return the bytes added to the file by keeping each operator of `wide` in 32 bits.

        These are its constants; one shared with a 16-bit operator is stored in both widths.
        """
        narrow_reads = {
            name
            for step in self._program.steps
            if step.name in self.names and step.name not in wide
            for name in step.sources
        }
        costs: dict[str, int] = {}
        counted: set[str] = set()
        for step in self._program.steps:
            if step.name in wide:
                constants = [n for n in dict.fromkeys(step.sources) if n not in counted]
                counted.update(constants)
                costs[step.name] = sum(self._added_bytes(n, n in narrow_reads) for n in constants)
        return costs

    def _is_too_large(self, name: str) -> bool:
        value = self._program.constants.get(name)
        if value is None or not _is_float(value):
            return False
        return _FP16_MAX < _magnitude(value) < _INFINITE

    def _added_bytes(self, name: str, shared: bool) -> int:
        if name not in self._program.constants:
            return 0
        value = self._program.constants[name]
        if not _is_float(value):
            return 0
        return int(value.size) * (4 if shared else 2)

    def _half(self, name: str, value: Value, rounded: set[str]) -> Value:
        if not _is_float(value) or name in rounded:
            return value
        if name in self._program.constants:
            # A constant is rounded once for all runs.
            if name not in self._halves:
                self._halves[name] = round_to_fp16(np.ascontiguousarray(value))
            return self._halves[name]
        return round_to_fp16(value)


def _results(step: Step) -> tuple[str, ...]:
    return tuple(name for name, _ in step.results)


def _is_float(value: Value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32


def _magnitude(value: Array) -> float:
    if not value.size:
        return 0.0
    largest = float(max(value.max(), -value.min()))
    return largest if np.isfinite(largest) else float("inf")
