"""Weights of a float .tflite file in fewer bits, with operators that every runtime gets right.

Operators that take matrices as integers quantise their input at run time. Where arithmetic has to
be float, DEQUANTIZE widens the weights, once a session. Rows of an embedding are looked up as
integers and widened afterwards: a table is never held in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.base import Request
from converters.tflite.flatbuffer import Array, Program
from converters.tflite.graph import Editor, Kind, Type, blockwise, name_of, quantization, replace
from converters.tflite.integers import SCALES, Store
from converters.tflite.static import Ranges, Use, has_constant_bias, matrices, quantize_inputs
from edge.bundle import KeptWider
from edge.precision import SMALL_ELEMENTS, Precision

# Operator -> dimension of its weights, its second input, along which outputs are counted.
OUTPUTS = {Kind.FULLY_CONNECTED: 0, Kind.CONV_2D: 0, Kind.DEPTHWISE_CONV_2D: 3}
# Operators that quantise their input at run time, and for what. Where older runtimes must be right
# too, int8-static among them, only convolutions are: they answer wrong for other matrices.
_INTEGER_ARITHMETIC = {
    Kind.FULLY_CONNECTED: (Precision.INT8, Precision.INT4),
    Kind.CONV_2D: (Precision.INT8, Precision.INT4, Precision.INT8_STATIC),
}
_TYPES = {8: Type.INT8, 4: Type.INT4}


class Narrower:
    """Narrows the weights of one program as a request says.

    owners: number of a buffer -> module of the checkpoint. ranges: of activations, for those that
    are to be integers as well.
    """

    def __init__(
        self,
        program: Program,
        request: Request,
        owners: Mapping[int, str],
        ranges: Ranges | None = None,
    ) -> None:
        self._program = program
        self._ranges = ranges or {}
        self._request = request
        self._owners = owners
        self._store = Store(program)
        self._kept: dict[str, KeptWider] = {}
        # Of the subgraph that is being changed.
        self._replaced: dict[tuple[int, int, bool], int] = {}
        self._quantised: dict[int, int] = {}
        self._uses: dict[int, Use] = {}

    def run(self) -> tuple[KeptWider, ...]:
        """Change the program; returns what had to stay wider than asked for."""
        for graph in self._program.graphs:
            editor = Editor(self._program, graph)
            self._replaced, self._quantised = {}, {}
            self._uses = {id(operator): use for use, operator in matrices(self._program, graph)}
            for operator in editor.operators():
                self._visit(editor, operator)
        return tuple(self._kept.values())

    def _visit(self, editor: Editor, operator: Any) -> None:
        kind = self._program.kind(operator)
        if kind != Kind.EMBEDDING_LOOKUP and kind not in OUTPUTS:
            return
        number = int(operator.inputs[1])
        tensor = editor.graph.tensors[number]
        values = self._program.values(tensor)
        if values is None or values.dtype != np.float32 or values.size < SMALL_ELEMENTS:
            return
        bits = self._bits(kind, tensor, values)
        if bits == 32:
            return
        if kind == Kind.EMBEDDING_LOOKUP:
            rows = self._half_rows if bits == 16 else self._integer_rows
            rows(editor, operator, tensor, bits)
            return
        ranges = self._ranges.get(self._uses.get(id(operator), (-1, 0)))
        static = ranges is not None and bits == 8 and has_constant_bias(editor, operator)
        # Layers that share their weights share what stands for them.
        key = (number, kind, static)
        if key not in self._replaced:
            matrix = self._half if bits == 16 else self._matrix
            self._replaced[key] = matrix(editor, tensor, kind, bits, static)
        operator.inputs[1] = self._replaced[key]
        if static and ranges is not None:
            quantize_inputs(editor, operator, ranges, self._quantised)

    def _bits(self, kind: int, tensor: Any, values: Array) -> int:
        """The width of one constant; what cannot have 4 bits gets 8, and is reported."""
        owner = self._owners.get(tensor.buffer, "")
        bits = self._request.width(owner).weight_bits
        pairs = kind in (Kind.EMBEDDING_LOOKUP, Kind.FULLY_CONNECTED) and values.shape[1] % 2 == 0
        if bits != 4 or pairs:
            return bits
        layer, wide = owner or name_of(tensor), Precision.INT8.value
        self._kept[layer] = KeptWider(layer=layer, precision=wide, size_bytes=values.size // 2)
        return 8

    def _half(self, editor: Editor, tensor: Any, kind: int, bits: int, static: bool) -> int:
        buffer = self._store.half(tensor)
        half = editor.tensor(name_of(tensor), tensor.shape, Type.FLOAT16, buffer=buffer)
        return editor.emit(editor.first, "DEQUANTIZE", [half], tensor.shape, version=3)

    def _half_rows(self, editor: Editor, operator: Any, tensor: Any, bits: int) -> None:
        """Older runtimes look up no 16-bit floats, but integers of the same bits."""
        buffer = self._store.half(tensor)
        table = editor.tensor(name_of(tensor), tensor.shape, Type.INT16, buffer=buffer)
        ids, output = int(operator.inputs[0]), int(operator.outputs[0])
        shape = editor.graph.tensors[output].shape
        rows = editor.emit(editor.before, "GATHER", [table, ids], shape, Type.INT16, version=2)
        half = editor.emit(editor.before, "BITCAST", [rows], shape, Type.FLOAT16)
        replace(operator, editor.operator("DEQUANTIZE", [half], output, version=3))

    def _matrix(self, editor: Editor, tensor: Any, kind: int, bits: int, static: bool) -> int:
        """Weights as integers, widened where arithmetic is float."""
        found = self._store.integers(tensor, bits, OUTPUTS[kind])
        name = name_of(tensor)
        if found.blocks > 1:
            scales = editor.tensor(
                f"{name}/scales",
                found.scales.shape,
                SCALES[bits],
                buffer=self._store.scales(tensor, bits),
            )
            details = blockwise(scales, found.block)
        else:
            details = quantization(found.scales[:, 0], axis=OUTPUTS[kind])
        matrix = editor.tensor(
            name, tensor.shape, _TYPES[bits], buffer=found.buffer, quantization=details
        )
        if static or self._request.precision in _INTEGER_ARITHMETIC.get(kind, ()):
            return matrix
        return editor.emit(editor.first, "DEQUANTIZE", [matrix], tensor.shape, version=5)

    def _integer_rows(self, editor: Editor, operator: Any, tensor: Any, bits: int) -> None:
        """Look up integers and their scales; a block with a scale of its own counts as a row."""
        found = self._store.integers(tensor, bits)
        name, place = name_of(tensor), editor.before
        count = int(tensor.shape[0]) * found.blocks
        table = editor.tensor(name, (count, found.block), _TYPES[bits], buffer=found.buffer)
        scales = editor.tensor(
            f"{name}/scales",
            (count, 1),
            SCALES[bits],
            buffer=self._store.scales(tensor, bits),
        )
        ids, output = int(operator.inputs[0]), int(operator.outputs[0])
        if found.blocks > 1:
            ids = _block_ids(editor, ids, found.blocks)
        rows = int(editor.graph.tensors[ids].shape[0])
        shape = (rows, found.block)
        values = editor.emit(place, "GATHER", [table, ids], shape, _TYPES[bits], version=2)
        wide = editor.emit(place, "CAST", [values], shape)
        factors = editor.emit(place, "GATHER", [scales, ids], (rows, 1), SCALES[bits])
        if SCALES[bits] == Type.FLOAT16:
            factors = editor.emit(place, "CAST", [factors], (rows, 1))
        if found.blocks == 1:
            replace(operator, editor.operator("MUL", [wide, factors], output))
            return
        product = editor.emit(place, "MUL", [wide, factors], shape)
        size = editor.integers("shape", editor.graph.tensors[output].shape)
        replace(operator, editor.operator("RESHAPE", [product, size], output))


def _block_ids(editor: Editor, ids: int, blocks: int) -> int:
    """(rows,) -> (rows * blocks,): the numbers of the blocks of each row."""
    rows = int(editor.graph.tensors[ids].shape[0])
    place = editor.before
    column = editor.reshape(place, ids, (rows, 1))
    factor = editor.integers("blocks", [blocks])
    first = editor.emit(place, "MUL", [column, factor], (rows, 1), Type.INT32)
    steps = editor.integers("block", range(blocks))
    every = editor.emit(place, "ADD", [first, steps], (rows, blocks), Type.INT32)
    return editor.reshape(place, every, (rows * blocks,))
