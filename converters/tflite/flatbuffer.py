"""Reading .tflite files to change them, and writing them with nothing stored twice.

The format (a flatbuffer, github.com/google-ai-edge/LiteRT, schema.fbs) lets tables refer to one
vector any number of times, and an operator, tensor or signature to any buffer.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

_IDENTIFIER = b"TFL3"
# What XNNPACK asks of weights that it reads where they lie.
_ALIGNMENT = 64
_DTYPES: dict[int, npt.DTypeLike] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.BOOL: np.bool_,
}


class Program:
    """A .tflite file taken apart: `model` holds its tables, constants stay on disk until read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.model = schema.ModelT.InitFromPackedBuf(self._data, 0)
        for buffer in self.model.buffers:
            if buffer.size:
                buffer.data = np.frombuffer(self._data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                # What is read lies in the file and cannot be changed.
                operator.inputs = _integers(operator.inputs)
                operator.outputs = _integers(operator.outputs)
        self._codes = {self._number(code): i for i, code in enumerate(self.model.operatorCodes)}

    @property
    def graphs(self) -> list[Any]:
        """One subgraph a signature, in their order."""
        return list(self.model.subgraphs)

    def kind(self, operator: Any) -> int:
        """The number of an operator in `schema.BuiltinOperator`."""
        return self._number(self.model.operatorCodes[operator.opcodeIndex])

    def values(self, tensor: Any) -> Array | None:
        """A constant's values in its shape; None where the tensor is computed."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0 or tensor.type not in _DTYPES:
            return None
        found: Array = data.view(_DTYPES[tensor.type])
        return found.reshape([] if tensor.shape is None else tensor.shape)

    def constants(self) -> Iterator[tuple[Any, Any, int, Any]]:
        """Each use of a constant: subgraph, operator, input number, tensor."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                for slot, index in enumerate(operator.inputs):
                    data = self.model.buffers[graph.tensors[index].buffer].data
                    if index >= 0 and data is not None and len(data):
                        yield graph, operator, slot, graph.tensors[index]

    def store(self, values: Array) -> int:
        """Add a buffer; returns its number."""
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def code(self, kind: int, version: int) -> int:
        """The number by which operators refer to a kind, at least of a version."""
        if kind not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = kind
            # Older readers know only this field; it ends at a number that says "look further".
            code.deprecatedBuiltinCode = min(kind, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[kind] = len(self.model.operatorCodes) - 1
        index = self._codes[kind]
        code = self.model.operatorCodes[index]
        code.version = max(code.version, version)
        return index

    def write(self, path: Path) -> dict[int, int]:
        """Write the file, each buffer once, constants one at a time.

        Returns the new number of each buffer by its old one. The program must not be used after.
        """
        for number, graph in enumerate(self.model.subgraphs):
            mine = [d for d in self.model.signatureDefs or [] if d.subgraphIndex == number]
            _drop_unused(graph, mine)
        moved = self._merge_buffers()
        tables = _tables(self.model)
        with path.open("wb") as file:
            _write_buffers(file, tables, [buffer.data for buffer in self.model.buffers])
        return moved

    def _number(self, code: Any) -> int:
        return int(max(code.builtinCode, code.deprecatedBuiltinCode))

    def _merge_buffers(self) -> dict[int, int]:
        """Keep one buffer of those with the same bytes, none that nothing refers to."""
        holders = [t for graph in self.model.subgraphs for t in graph.tensors]
        holders += self.model.metadata or []
        # Number 0 means that there are no values.
        kept, numbers = [schema.BufferT()], {b"": 0}
        moved: dict[int, int] = {}
        for holder in holders:
            old = holder.buffer
            if old not in moved:
                data = self.model.buffers[old].data
                key = b"" if data is None or not len(data) else hashlib.blake2b(data).digest()
                if key not in numbers:
                    numbers[key] = len(kept)
                    kept.append(self.model.buffers[old])
                moved[old] = numbers[key]
            holder.buffer = moved[old]
        self.model.buffers = kept
        return moved


def _integers(numbers: Any) -> Array:
    return np.array([] if numbers is None else numbers, np.int32)


def _drop_unused(graph: Any, signatures: list[Any]) -> None:
    """Remove the tensors of a subgraph that nothing refers to, and number the others anew."""
    used = {int(i) for i in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        lists = (operator.inputs, operator.outputs, operator.intermediates)
        used.update(int(i) for numbers in lists if numbers is not None for i in numbers)
    used.discard(-1)
    details = {i: _scales_holder(graph.tensors[i]) for i in used}
    used.update(holder.scales for holder in details.values() if holder is not None)
    order = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}

    def renumber(numbers: Any) -> Any:
        return None if numbers is None else np.array([order[int(i)] for i in numbers], np.int32)

    for holder in details.values():
        if holder is not None:
            holder.scales = order[holder.scales]
    for operator in graph.operators:
        operator.inputs = renumber(operator.inputs)
        operator.outputs = renumber(operator.outputs)
        operator.intermediates = renumber(operator.intermediates)
    graph.inputs, graph.outputs = renumber(graph.inputs), renumber(graph.outputs)
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    for signature in signatures:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = order[entry.tensorIndex]


def _scales_holder(tensor: Any) -> Any:
    """What names the tensor that holds a tensor's scales; None where it has none."""
    details = tensor.quantization.details if tensor.quantization is not None else None
    return details if isinstance(details, schema.BlockwiseQuantizationT) else None


class _Builder(schema.flatbuffers.Builder):
    """Stores each string and each vector of numbers once."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._stored: dict[Any, int] = {}

    def CreateString(self, s: Any, *more: Any, **options: Any) -> int:
        text = s.encode() if isinstance(s, str) else bytes(s)
        if text not in self._stored:
            self._stored[text] = super().CreateString(text, *more, **options)
        return self._stored[text]

    def CreateNumpyVector(self, x: Array) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self._stored:
            self._stored[key] = super().CreateNumpyVector(x)
        return self._stored[key]


def _tables(model: Any) -> bytearray:
    """The file without its constants: every buffer is there, and empty."""
    buffers = model.buffers
    try:
        model.buffers = [schema.BufferT() for _ in buffers]
        for empty, buffer in zip(model.buffers, buffers, strict=True):
            if buffer.data is not None and len(buffer.data):
                empty.data = np.zeros(0, np.uint8)
        builder = _Builder()
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytearray(builder.Output())
    finally:
        model.buffers = buffers


def _write_buffers(file: BinaryIO, tables: bytearray, contents: list[Array | None]) -> None:
    """Write the tables and then the constants, to which they are made to refer."""
    model = schema.Model.GetRootAs(tables, 0)
    end = len(tables)
    places: list[tuple[int, Array]] = []
    for number, data in enumerate(contents):
        if data is None or not len(data):
            continue
        # A vector is its length in 4 bytes, then its bytes; a reference counts from itself.
        start = -(-(end + 4) // _ALIGNMENT) * _ALIGNMENT
        table = model.Buffers(number)._tab
        field = table.Pos + table.Offset(4)
        struct.pack_into("<I", tables, field, start - 4 - field)
        places.append((start, data))
        end = start + len(data)
    file.write(tables)
    for start, data in places:
        file.write(b"\0" * (start - 4 - file.tell()) + struct.pack("<I", len(data)))
        file.write(data.data)
    file.write(b"\0" * (-end % 4))
