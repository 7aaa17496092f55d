"""Adding tensors and operators to one subgraph of a .tflite file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.flatbuffer import Array, Program

Kind = schema.BuiltinOperator
Type = schema.TensorType


class Editor:
    """Rewrites one subgraph.

    Going through `operators`, new ones are added to `first` (run before all others), `before` or
    `after` the one that is being visited.
    """

    def __init__(self, program: Program, graph: Any) -> None:
        self.program = program
        self.graph = graph
        self.first: list[Any] = []
        self.before: list[Any] = []
        self.after: list[Any] = []

    def operators(self) -> Iterator[Any]:
        """Each operator; once all were visited the subgraph holds the new ones too."""
        done: list[Any] = []
        for operator in self.graph.operators:
            self.before, self.after = [], []
            yield operator
            done += [*self.before, operator, *self.after]
        self.graph.operators = [*self.first, *done]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int,
        *,
        buffer: int = 0,
        quantization: Any = None,
    ) -> int:
        """Add a tensor; returns its number."""
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = kind
        tensor.buffer = buffer
        tensor.quantization = quantization
        tensor.hasRank = True
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def integers(self, name: str, values: Sequence[int] | Array) -> int:
        """Add a constant of 32-bit integers."""
        stored = np.asarray(values, np.int32)
        return self.tensor(name, stored.shape, Type.INT32, buffer=self.program.store(stored))

    def emit(
        self,
        place: list[Any],
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        kind: int = Type.FLOAT32,
        *,
        version: int = 1,
        quantization: Any = None,
    ) -> int:
        """Add an operator to `first`, `before` or `after`; returns the number of its output."""
        source = name_of(self.graph.tensors[inputs[0]])
        output = self.tensor(f"{source}/{name.lower()}", shape, kind, quantization=quantization)
        place.append(self.operator(name, inputs, output, version=version))
        return output

    def operator(self, name: str, inputs: Sequence[int], output: int, *, version: int = 1) -> Any:
        """An operator without options but, of a cast, its types."""
        made = schema.OperatorT()
        made.opcodeIndex = self.program.code(getattr(Kind, name), version)
        made.inputs = np.asarray(inputs, np.int32)
        made.outputs = np.asarray([output], np.int32)
        options = "".join(word.capitalize() for word in name.split("_")) + "Options"
        number = getattr(schema.BuiltinOptions, options, None)
        if number is not None:
            made.builtinOptionsType = number
            made.builtinOptions = getattr(schema, f"{options}T")()
        if name == "CAST":
            made.builtinOptions.inDataType = self.graph.tensors[inputs[0]].type
            made.builtinOptions.outDataType = self.graph.tensors[output].type
        return made

    def reshape(self, place: list[Any], source: int, shape: Sequence[int]) -> int:
        """Add a reshape; returns the number of its output."""
        size = self.integers("shape", shape)
        return self.emit(place, "RESHAPE", [source, size], shape, self.graph.tensors[source].type)


def quantization(scale: Array, *, axis: int = 0, zero: int = 0) -> Any:
    """What makes integers of a tensor: one scale for all, or for each index of an axis."""
    made = schema.QuantizationParametersT()
    made.scale = np.atleast_1d(np.asarray(scale, np.float32))
    # Runtimes demand one zero point a scale.
    made.zeroPoint = np.full(len(made.scale), zero, np.int64)
    made.quantizedDimension = axis
    return made


def blockwise(scales: int, block: int) -> Any:
    """Integers with a scale for every `block` inputs; scales: the tensor that holds them."""
    made = schema.QuantizationParametersT()
    made.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    made.details = schema.BlockwiseQuantizationT()
    made.details.scales = scales
    made.details.zeroPoints = -1
    made.details.blockSize = block
    return made


def replace(operator: Any, by: Any) -> None:
    """Turn an operator into another, in its place."""
    vars(operator).update(vars(by))


def name_of(tensor: Any) -> str:
    """A tensor's name; flatbuffers are read as bytes."""
    name = tensor.name or b""
    return name.decode("utf-8", errors="replace") if isinstance(name, bytes) else str(name)


def shape_of(graph: Any, number: int) -> tuple[int, ...]:
    """A tensor's shape; () for a number."""
    shape = graph.tensors[number].shape
    return () if shape is None else tuple(int(size) for size in shape)


def readers(graph: Any, number: int) -> list[Any]:
    """The operators of a subgraph that take a tensor."""
    return [operator for operator in graph.operators if number in operator.inputs]


def in_order(graph: Any) -> list[Any]:
    """The operators of a subgraph, each after those whose outputs it takes."""
    makers = {int(i): o for o in graph.operators for i in o.outputs}
    done: dict[int, Any] = {}

    def place(operator: Any) -> None:
        front = [operator]
        while front:
            needed = [makers[int(i)] for i in front[-1].inputs if int(i) in makers]
            missing = [o for o in needed if id(o) not in done]
            if missing:
                front += missing[:1]
            else:
                done.setdefault(id(front[-1]), front[-1])
                front.pop()

    for operator in graph.operators:
        place(operator)
    return list(done.values())
