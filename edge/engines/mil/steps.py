"""The parts of a MIL program that run: its inputs, its steps, and rounding to 16-bit floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.operators import MOVES, Operator
from edge.engines.mil.package import TensorType, Value
from edge.errors import EngineError

# Errors of numpy for inconsistent arguments, or ones that do not fit in memory.
_FAILURES = (
    *(ValueError, IndexError, TypeError, KeyError, AttributeError),
    *(ArithmeticError, MemoryError),
)
# The least float32 that rounds to infinity in 16 bits, and the least normal 16-bit float.
_FP16_OVERFLOW = np.float32(65520.0)
_FP16_NORMAL = np.float32(2.0**-14)
_SMALL_SIZE = 2048


@dataclass(frozen=True)
class Step:
    """One operator to run, with the sources of its arguments and the types of its results."""

    kind: str
    name: str
    function: Operator
    arguments: Mapping[str, str | tuple[str, ...]]
    results: tuple[tuple[str, TensorType], ...]
    # Tensors that no later step needs.
    released: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the tensors it reads, constants included."""
        return tuple(
            name
            for source in self.arguments.values()
            for name in (source if isinstance(source, tuple) else (source,))
        )

    def run(self, values: dict[str, Value], *, round_fp16: bool) -> None:
        """Run the operator and add its results to `values`; raises EngineError, naming it."""
        arguments = {
            parameter: tuple(values[name] for name in source)
            if isinstance(source, tuple)
            else values[source]
            for parameter, source in self.arguments.items()
        }
        try:
            returned = self.function(**arguments)
            tensors = returned if isinstance(returned, tuple) else (returned,)
            held = self._converted(tensors, round_fp16=round_fp16 and self.kind not in MOVES)
        except _FAILURES as error:
            raise EngineError(f"{self} failed: {' '.join(str(error).split())}") from error
        for (name, declared), tensor in zip(self.results, held, strict=True):
            if not declared.admits(tensor.shape):
                raise EngineError(
                    f"{self} gave shape {_shown(tensor.shape)}, "
                    f"where the program says {_shown(declared.shape)}"
                )
            values[name] = tensor

    def _converted(self, tensors: tuple[Array, ...], *, round_fp16: bool) -> list[Array]:
        if len(tensors) != len(self.results):
            raise ValueError(f"it gave {len(tensors)} results instead of {len(self.results)}")
        return [
            convert(tensor, declared, round_fp16=round_fp16)
            for tensor, (_, declared) in zip(tensors, self.results, strict=True)
        ]

    def __str__(self) -> str:
        return f"operator {self.kind!r} ({self.name!r})"


@dataclass(frozen=True)
class Input:
    """One input of a program.

    ranges: minimum and maximum size of each dimension (None: no limit). choices: the only accepted
    shapes. Both are empty when the type is complete.
    """

    name: str
    type: TensorType
    ranges: tuple[tuple[int, int | None], ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()

    def accept(self, value: Any) -> Array:
        """Convert `value` to the input's type; raises EngineError when it does not fit."""
        array = np.asarray(value)
        if not self._accepts(array.shape):
            raise EngineError(
                f"input {self.name!r} has shape {_shown(array.shape)}; "
                f"the program accepts {self._accepted()}"
            )
        held = self.type.element.held
        if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and held.kind != "f"):
            raise EngineError(
                f"input {self.name!r} is {array.dtype}; the program takes {self.type.element.name}"
            )
        return convert(array, self.type, round_fp16=True)

    def _accepts(self, shape: tuple[int, ...]) -> bool:
        if not self.type.admits(shape) or (self.choices and shape not in self.choices):
            return False
        return all(
            low <= size and (high is None or size <= high)
            for size, (low, high) in zip(shape, self.ranges, strict=False)
        )

    def _accepted(self) -> str:
        if self.choices:
            return " or ".join(_shown(choice) for choice in self.choices)
        if not self.ranges:
            return _shown(self.type.shape)
        sizes = [
            str(low) if low == high else f"{low}..{'' if high is None else high}"
            for low, high in self.ranges
        ]
        return f"({', '.join(sizes)})"


def round_to_fp16(x: Array) -> Array:
    """Round every value of a float32 array to the nearest 16-bit float, ties to even.

    Equal to converting to float16 and back, but an order of magnitude faster on large arrays:
    numpy converts one element at a time, this works on whole arrays of bit patterns.
    """
    if x.size < _SMALL_SIZE or not max(x.max(), -x.min()) < _FP16_OVERFLOW:
        # A small array, or one with an overflow, an infinity or a nan.
        return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32)
    # Half of the 13 dropped bits, plus one when the last remaining bit is odd.
    rounded = bits >> np.uint32(13)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x0FFF)
    rounded += bits
    rounded &= np.uint32(0xFFFFE000)
    result = rounded.view(np.float32)
    tiny = np.abs(x) < _FP16_NORMAL
    if tiny.any():
        # Subnormal: multiples of 2**-24, the spacing of float32 around 0.75.
        near = np.float32(0.75)
        np.copyto(result, (x + near) - near, where=tiny)
    return result


def convert(value: Any, declared: TensorType, *, round_fp16: bool) -> Array:
    """Convert `value` to its held dtype; with `round_fp16`, values declared fp16 are rounded."""
    held = np.asarray(value).astype(declared.element.held, copy=False)
    return round_to_fp16(held) if round_fp16 and declared.element.name == "fp16" else held


def _shown(shape: Iterable[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
