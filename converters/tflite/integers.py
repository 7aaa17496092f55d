"""Constants of a .tflite file as the integers and halves that `edge.precision` describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import Array, Program
from converters.tflite.graph import Type
from edge.quantization import quantize

# Runtimes want the scales of 4-bit blocks in 16-bit floats; tables follow the matrices.
SCALES = {8: Type.FLOAT32, 4: Type.FLOAT16}


@dataclass(frozen=True)
class Integers:
    """A stored matrix of (rows, inputs) integers.

    buffer: of the values. scales: float32 (rows, blocks), of which each is for `block` inputs.
    """

    buffer: int
    scales: Array
    block: int

    @property
    def blocks(self) -> int:
        """How many scales a row has."""
        return int(self.scales.shape[1])


class Store:
    """Narrowed copies of a program's constants, each made once however often it is used."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._integers: dict[tuple[int, int, int], Integers] = {}
        self._buffers: dict[tuple[int, str], int] = {}

    def half(self, tensor: Any) -> int:
        """The buffer of a constant's values in 16-bit floats."""
        key = (tensor.buffer, "half")
        if key not in self._buffers:
            values = self._values(tensor)
            self._buffers[key] = self._program.store(values.astype(np.float16))
        return self._buffers[key]

    def integers(self, tensor: Any, bits: int, axis: int = 0) -> Integers:
        """A constant's values in integers; axis: the dimension along which its rows lie."""
        key = (tensor.buffer, bits, axis)
        if key not in self._integers:
            self._integers[key] = self._made(self._values(tensor), bits, axis)
        return self._integers[key]

    def scales(self, tensor: Any, bits: int) -> int:
        """The buffer of the scales of `integers`, where they are a tensor of their own."""
        key = (tensor.buffer, f"{bits}")
        if key not in self._buffers:
            found = self.integers(tensor, bits).scales
            dtype = np.float16 if SCALES[bits] == Type.FLOAT16 else np.float32
            self._buffers[key] = self._program.store(found.astype(dtype))
        return self._buffers[key]

    def _values(self, tensor: Any) -> Array:
        values = self._program.values(tensor)
        assert values is not None, "only constants are narrowed"
        return values

    def _made(self, weights: Array, bits: int, axis: int) -> Integers:
        rows = np.moveaxis(weights, axis, 0)
        values, scales = quantize(rows.reshape(rows.shape[0], -1), bits)
        inputs = values.shape[1]
        if axis:
            values = np.moveaxis(values.reshape(rows.shape), 0, axis)
        buffer = self._program.store(pack(values) if bits == 4 else values)
        return Integers(buffer, scales, inputs // scales.shape[1])


def pack(values: Array) -> Array:
    """int8 within -8..7, an even number of them -> two a byte, the first in its lower half."""
    pairs = values.reshape(-1, 2)
    found: Array = ((pairs[:, 0] & 15) | (pairs[:, 1] << 4)).view(np.uint8)
    return found
