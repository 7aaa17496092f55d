"""Reader of .tflite files: a flatbuffer whose subgraphs share their constants."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.errors import BundleError
from edge.inspection.contents import Contents, bits_of, damaged, is_weight
from edge.inspection.layers import LayerFinder, Operation, readable
from edge.inspection.records import Signature, StoredTensor
from edge.signature import TensorSpec

_TITLE = "TFLite"
_IDENTIFIER = b"TFL3"
# Name suffix of the scales of a weight.
_SCALES = "/scales"
# Errors of flatbuffers' accessors for invalid offsets and lengths.
_MALFORMED = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)


def read(path: Path) -> Contents:
    """Parse a .tflite file; raises BundleError when it is not one or is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, _TITLE, error.strerror) from None
    if data[4:8] != _IDENTIFIER:
        raise damaged(path, _TITLE, "its first bytes are not those of the format")
    try:
        return _Reader(path, data).contents()
    except BundleError:
        raise
    except _MALFORMED as error:
        raise damaged(path, _TITLE, f"its tables are broken: {error}") from None


@dataclass(frozen=True)
class _Use:
    """One use of a constant in a subgraph."""

    key: str
    name: str
    tensor: Any


class _Reader:
    def __init__(self, path: Path, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._path = path
        self._data = data
        self._model = schema.Model.GetRootAs(data, 0)
        self._types = _by_number(schema.TensorType)
        self._operators = _by_number(schema.BuiltinOperator)
        count = self._count(self._model.SubgraphsLength())
        if not count:
            raise damaged(path, _TITLE, "it holds no graph")
        self._graphs = [self._model.Subgraphs(i) for i in range(count)]

    def contents(self) -> Contents:
        operations = [entry for i in range(len(self._graphs)) for entry in self._operations(i)]
        description = self._model.Description()
        return Contents(
            version=f"schema {self._model.Version()}",
            producer=_text(description) if description else None,
            signatures=tuple(self._signatures()),
            operators=Counter(kind for kind, _ in operations),
            tensors=tuple(self._stored(LayerFinder(operation for _, operation in operations))),
        )

    def _count(self, length: int) -> int:
        """Return a vector's length; raises BundleError if its entries cannot fit in the file."""
        if length * 4 > len(self._data):
            raise damaged(self._path, _TITLE, f"a list in it claims {length} entries")
        return length

    def _tensor(self, graph: int, index: int) -> Any:
        if not 0 <= index < self._graphs[graph].TensorsLength():
            raise damaged(self._path, _TITLE, f"an operator uses tensor {index}, there is none")
        return self._graphs[graph].Tensors(index)

    def _operations(self, graph: int) -> Iterator[tuple[str, Operation]]:
        """Yield the operators of a subgraph with their kinds; tensors are named subgraph:number."""
        for number in range(self._count(self._graphs[graph].OperatorsLength())):
            operator = self._graphs[graph].Operators(number)
            inputs = [int(i) for i in _vector(operator.InputsAsNumpy()) if i >= 0]
            outputs = [int(i) for i in _vector(operator.OutputsAsNumpy()) if i >= 0]
            hint = readable(_text(self._tensor(graph, outputs[0]).Name())) if outputs else ""
            yield (
                self._kind(operator),
                Operation(
                    [f"{graph}:{i}" for i in inputs], [f"{graph}:{i}" for i in outputs], hint
                ),
            )

    def _kind(self, operator: Any) -> str:
        index = operator.OpcodeIndex()
        if index >= self._model.OperatorCodesLength():
            raise damaged(self._path, _TITLE, f"it has no operator code {index}")
        code = self._model.OperatorCodes(index)
        if custom := code.CustomCode():
            return _text(custom)
        # Codes below 127 are also in the deprecated field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return self._operators.get(number, f"operator {number}")

    def _dtype(self, tensor: Any) -> str:
        number = tensor.Type()
        if number not in self._types:
            raise damaged(self._path, _TITLE, f"it uses data type number {number}")
        return self._types[number].lower()

    def _signatures(self) -> Iterator[Signature]:
        for number in range(self._count(self._model.SignatureDefsLength())):
            signature = self._model.SignatureDefs(number)
            graph = signature.SubgraphIndex()
            if graph >= len(self._graphs):
                raise damaged(self._path, _TITLE, f"a signature names subgraph {graph}")
            inputs = range(self._count(signature.InputsLength()))
            outputs = range(self._count(signature.OutputsLength()))
            yield Signature(
                name=_text(signature.SignatureKey()),
                inputs=tuple(self._spec(graph, signature.Inputs(i)) for i in inputs),
                outputs=tuple(self._spec(graph, signature.Outputs(i)) for i in outputs),
            )

    def _spec(self, graph: int, entry: Any) -> TensorSpec:
        tensor = self._tensor(graph, entry.TensorIndex())
        shape = tuple(int(size) for size in _vector(tensor.ShapeAsNumpy()))
        return TensorSpec(name=_text(entry.Name()), dtype=self._dtype(tensor), shape=shape)

    def _stored(self, layers: LayerFinder) -> Iterator[StoredTensor]:
        """Yield each buffer once, then the quantization parameters of its tensors."""
        float16_buffers = set(self._float16_buffers())
        counted: set[int] = set()
        for number, uses in sorted(self._uses().items()):
            first = uses[0]
            dtype = "float16" if number in float16_buffers else self._dtype(first.tensor)
            if dtype in {"string", "resource", "variant"}:
                continue
            shape = tuple(int(size) for size in _vector(first.tensor.ShapeAsNumpy()))
            elements, size_bytes = math.prod(shape), self._size_bytes(number)
            if size_bytes != -(-elements * bits_of(dtype) // 8):
                reason = f"the values of '{first.name}' do not fill its shape {shape}"
                raise damaged(self._path, _TITLE, reason)
            name, layer = layers.locate(first.key, first.name)
            role: Literal["weight", "scale", "index"]
            role = "weight" if is_weight(dtype, elements) else "index"
            # Scales that operators read are separate constants.
            role = "scale" if first.name.endswith(_SCALES) else role
            tensor = StoredTensor(
                name=name,
                dtype=dtype,
                shape=shape,
                elements=elements,
                size_bytes=size_bytes,
                role=role,
                layer=layer,
            )
            yield tensor
            yield from _scales(tensor, [use.tensor for use in uses], counted)

    def _float16_buffers(self) -> Iterator[int]:
        """Yield buffers of float16 values declared as integers, for GATHER in older runtimes."""
        for graph, content in enumerate(self._graphs):
            tables = {}
            for number in range(content.OperatorsLength()):
                operator = content.Operators(number)
                if (kind := self._kind(operator)) == "GATHER":
                    tables[operator.Outputs(0)] = operator.Inputs(0)
                elif kind == "BITCAST" and operator.Inputs(0) in tables:
                    output = self._tensor(graph, operator.Outputs(0))
                    if self._dtype(output) == "float16":
                        yield self._tensor(graph, tables[operator.Inputs(0)]).Buffer()

    def _uses(self) -> dict[int, list[_Use]]:
        """Return the constants of all subgraphs by the number of their buffer."""
        uses_by_buffer: dict[int, list[_Use]] = {}
        buffers = self._count(self._model.BuffersLength())
        for graph, content in enumerate(self._graphs):
            for index in range(self._count(content.TensorsLength())):
                tensor = content.Tensors(index)
                number = tensor.Buffer()
                if number >= buffers:
                    raise damaged(self._path, _TITLE, f"a tensor names buffer {number}")
                if self._size_bytes(number):
                    name = readable(_text(tensor.Name()))
                    uses_by_buffer.setdefault(number, []).append(
                        _Use(f"{graph}:{index}", name, tensor)
                    )
        return uses_by_buffer

    def _size_bytes(self, number: int) -> int:
        buffer = self._model.Buffers(number)
        # Files above 2 GB, and those of the quantizer, store data after the flatbuffer.
        inside, offset, outside = buffer.DataLength(), buffer.Offset(), buffer.Size()
        if max(inside, offset + outside) > len(self._data):
            raise damaged(self._path, _TITLE, f"buffer {number} ends after the file")
        return int(inside or outside)


def _scales(weight: StoredTensor, tensors: list[Any], counted: set[int]) -> Iterator[StoredTensor]:
    """Yield the quantization parameters of a constant; tensors may share them.

    counted: addresses of the vectors yielded before; updated.
    """
    arrays: dict[int, Any] = {}
    for tensor in tensors:
        quantization = tensor.Quantization()
        if quantization is None:
            continue
        for array in (quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()):
            if (
                len(_vector(array))
                and (start := array.__array_interface__["data"][0]) not in counted
            ):
                arrays[start] = array
    counted.update(arrays)
    for dtype in sorted({str(array.dtype) for array in arrays.values()}):
        same_dtype = [array for array in arrays.values() if str(array.dtype) == dtype]
        yield StoredTensor(
            name=f"{weight.name}: {'scales' if 'float' in dtype else 'zero points'}",
            dtype=dtype,
            shape=(len(same_dtype), len(same_dtype[0])),
            elements=sum(array.size for array in same_dtype),
            size_bytes=sum(array.nbytes for array in same_dtype),
            role="scale",
            layer=weight.layer,
        )


def _vector(value: Any) -> Any:
    """Return the result of an `AsNumpy` accessor, which is 0 for a missing vector."""
    return () if isinstance(value, int) else value


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", errors="replace")


def _by_number(names: Any) -> dict[int, str]:
    return {value: name for name, value in vars(names).items() if isinstance(value, int)}
