"""Attention with fewer operators than the exporter writes, each of which passes over its tensors.

Scores are multiplied by a number that can be part of the query's weights; batches of matrices are
reshaped to three dimensions and back, although runtimes take four; and keys are transposed for a
product that can read them as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.tflite.flatbuffer import Program
from converters.tflite.graph import Editor, Kind, shape_of

_NO_ACTIVATION = schema.ActivationFunctionType.NONE
_MOVES = (Kind.RESHAPE, Kind.TRANSPOSE)
_BROADCASTS = (Kind.ADD, Kind.SUB, Kind.MUL)


def simplify(program: Program, owners: dict[int, str]) -> None:
    """Change all subgraphs. owners: buffer -> module; buffers that replace others are added."""
    scaled: dict[tuple[int, float], int] = {}
    for graph in program.graphs:
        _Scales(program, graph, owners, scaled).fold()
        _four_dimensions(program, graph)
        _plain_keys(program, graph)
        _drop_reshapes(program, graph)


class _Links:
    """Which operator makes each tensor of a subgraph, and which ones read it."""

    def __init__(self, graph: Any) -> None:
        self.maker = {int(o.outputs[0]): o for o in graph.operators if len(o.outputs) == 1}
        self.readers: dict[int, list[Any]] = {}
        for operator in graph.operators:
            for number in operator.inputs:
                self.readers.setdefault(int(number), []).append(operator)
        self._ends = {int(i) for i in graph.outputs}

    def alone(self, number: int) -> bool:
        """Whether a tensor has one reader and is no output."""
        return len(self.readers.get(number, ())) == 1 and number not in self._ends


class _Scales:
    """Moves the factor of attention scores into the weights and bias of the query."""

    def __init__(
        self,
        program: Program,
        graph: Any,
        owners: dict[int, str],
        scaled: dict[tuple[int, float], int],
    ) -> None:
        self._program = program
        self._graph = graph
        self._owners = owners
        self._scaled = scaled

    def fold(self) -> None:
        found = list(self._found())
        uses = Counter(
            int(self._graph.tensors[number].buffer)
            for operator in self._graph.operators
            for number in operator.inputs
        )
        counts = Counter(self._buffer(matrix, 1) for _, _, matrix, _ in found)
        drop: set[int] = set()
        for multiply, product, matrix, factor in found:
            weights = self._buffer(matrix, 1)
            # Weights that are used elsewhere too would have to be stored twice.
            if counts[weights] != uses[weights]:
                continue
            for slot in range(1, len(matrix.inputs)):
                if matrix.inputs[slot] >= 0:
                    matrix.inputs[slot] = self._times(int(matrix.inputs[slot]), factor)
            product.outputs = multiply.outputs
            drop.add(id(multiply))
        self._graph.operators = [o for o in self._graph.operators if id(o) not in drop]

    def _found(self) -> Iterator[tuple[Any, Any, Any, float]]:
        """Multiplication of scores, the product it follows, the query's matrix, the factor."""
        links = _Links(self._graph)
        for multiply in self._graph.operators:
            if self._program.kind(multiply) != Kind.MUL:
                continue
            factor = self._number(int(multiply.inputs[1]))
            product = links.maker.get(int(multiply.inputs[0]))
            if factor is None or product is None or not links.alone(int(multiply.inputs[0])):
                continue
            if self._program.kind(product) != Kind.BATCH_MATMUL:
                continue
            matrix = self._matrix(links, int(product.inputs[0]))
            if matrix is not None:
                yield multiply, product, matrix, factor

    def _matrix(self, links: _Links, number: int) -> Any:
        """The matrix of constants that makes a tensor, however it is reshaped, and only it."""
        while links.alone(number) and (maker := links.maker.get(number)) is not None:
            kind = self._program.kind(maker)
            if kind == Kind.FULLY_CONNECTED:
                return maker if self._constant(maker) else None
            if kind not in _MOVES:
                return None
            number = int(maker.inputs[0])
        return None

    def _number(self, number: int) -> float | None:
        values = self._program.values(self._graph.tensors[number])
        return float(values.item()) if values is not None and values.size == 1 else None

    def _buffer(self, operator: Any, slot: int) -> int:
        return int(self._graph.tensors[operator.inputs[slot]].buffer)

    def _constant(self, matrix: Any) -> bool:
        """Whether weights and bias are stored and what comes out is proportional to them."""
        if matrix.builtinOptions.fusedActivationFunction != _NO_ACTIVATION:
            return False
        tensors = [self._graph.tensors[number] for number in matrix.inputs[1:] if number >= 0]
        return all(self._program.values(tensor) is not None for tensor in tensors)

    def _times(self, number: int, factor: float) -> int:
        """A constant times a number, once for all subgraphs."""
        tensor = self._graph.tensors[number]
        key = (tensor.buffer, factor)
        if key not in self._scaled:
            values = self._program.values(tensor)
            assert values is not None
            self._scaled[key] = self._program.store(values * np.float32(factor))
            if tensor.buffer in self._owners:
                self._owners[self._scaled[key]] = self._owners[tensor.buffer]
        editor = Editor(self._program, self._graph)
        return editor.tensor(tensor.name, tensor.shape, tensor.type, buffer=self._scaled[key])


def _four_dimensions(program: Program, graph: Any) -> None:
    """Let products read what was reshaped for them by leaving out a leading 1."""
    links = _Links(graph)
    editor = Editor(program, graph)
    for operator in editor.operators():
        if program.kind(operator) != Kind.BATCH_MATMUL:
            continue
        sources = [_without_reshape(program, graph, links, int(i)) for i in operator.inputs]
        if any(source is None for source in sources):
            continue
        output = int(operator.outputs[0])
        tensor = graph.tensors[output]
        wide = editor.tensor(tensor.name, (1, *tensor.shape), tensor.type)
        operator.inputs, operator.outputs = np.array(sources, np.int32), np.array([wide], np.int32)
        size = editor.integers("shape", tensor.shape)
        editor.after.append(editor.operator("RESHAPE", [wide, size], output))
    graph.operators = _needed(graph, graph.operators)


def _without_reshape(program: Program, graph: Any, links: _Links, number: int) -> int | None:
    maker = links.maker.get(number)
    if maker is None or program.kind(maker) != Kind.RESHAPE:
        return None
    source = int(maker.inputs[0])
    wide, narrow = shape_of(graph, source), shape_of(graph, number)
    return source if wide == (1, *narrow) else None


def _plain_keys(program: Program, graph: Any) -> None:
    """Products read the second matrix by rows where its transposition was all for them."""
    links = _Links(graph)
    for operator in list(graph.operators):
        if program.kind(operator) != Kind.BATCH_MATMUL or operator.builtinOptions.adjY:
            continue
        number = int(operator.inputs[1])
        maker = links.maker.get(number)
        if maker is None or program.kind(maker) != Kind.TRANSPOSE or not links.alone(number):
            continue
        order = program.values(graph.tensors[maker.inputs[1]])
        if order is None or len(order) < 3 or order[-1] == len(order) - 1:
            continue
        editor = Editor(program, graph)
        shape = shape_of(graph, number)
        swapped = (*order[:-2], order[-1], order[-2])
        tensor = graph.tensors[number]
        output = editor.tensor(tensor.name, (*shape[:-2], shape[-1], shape[-2]), tensor.type)
        maker.inputs[1] = editor.integers("order", swapped)
        maker.outputs = np.array([output], np.int32)
        operator.inputs[1] = output
        operator.builtinOptions.adjY = True


def _drop_reshapes(program: Program, graph: Any) -> None:
    """Leave out reshapes of reshapes, those to the same shape, and those that only broadcast."""
    links = _Links(graph)
    same: dict[int, int] = {}
    kept = []
    for operator in graph.operators:
        operator.inputs = np.array([same.get(int(i), int(i)) for i in operator.inputs], np.int32)
        if program.kind(operator) in _BROADCASTS:
            _read_wider(program, graph, links, operator)
        if program.kind(operator) == Kind.RESHAPE:
            maker = links.maker.get(int(operator.inputs[0]))
            if maker is not None and program.kind(maker) == Kind.RESHAPE:
                operator.inputs[0] = maker.inputs[0]
            source, output = int(operator.inputs[0]), int(operator.outputs[0])
            if shape_of(graph, source) == shape_of(graph, output) and output not in graph.outputs:
                same[output] = source
                continue
        kept.append(operator)
    graph.operators = _needed(graph, kept)


def _read_wider(program: Program, graph: Any, links: _Links, operator: Any) -> None:
    """A leading 1 that a reshape left out does not change what is broadcast."""
    shapes = [shape_of(graph, int(i)) for i in operator.inputs]
    for slot, number in enumerate(operator.inputs):
        source = _without_reshape(program, graph, links, int(number))
        if source is None:
            continue
        others = [shape for i, shape in enumerate(shapes) if i != slot]
        wide = np.broadcast_shapes(shape_of(graph, source), *others)
        if wide == shape_of(graph, int(operator.outputs[0])):
            operator.inputs[slot] = source


def _needed(graph: Any, operators: list[Any]) -> list[Any]:
    """Those whose outputs are read."""
    read = {int(i) for i in graph.outputs}
    kept = []
    for operator in reversed(operators):
        if any(int(i) in read for i in operator.outputs):
            read.update(int(i) for i in operator.inputs)
            kept.append(operator)
    return kept[::-1]
