"""Norms that the exporter multiplied into the matrices behind them, taken out again.

It turns W (x * gamma + beta) + b into (W gamma) x + (b + W beta). That changes what is rounded:
weights in integers would be others than in every other format, and a decoder that shares the table
of the embeddings would be stored a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from converters.tflite.flatbuffer import Array, Program
from converters.tflite.graph import Editor, Kind, Type, in_order, readers, shape_of
from edge.precision import SMALL_ELEMENTS

_CLOSE = 1e-4


@dataclass(frozen=True)
class _Matrix:
    """A linear layer of the checkpoint. weight: (outputs, inputs)."""

    name: str
    weight: Array
    bias: Array | None


@dataclass(frozen=True)
class _Norm:
    """What a norm multiplies by and adds, each (width,)."""

    gamma: Array
    beta: Array | None


def restore_norms(program: Program, model: nn.Module, owners: dict[int, str]) -> None:
    """Give each matrix without an owner its checkpoint's weights, if a norm explains it.

    owners: buffer -> module; what was restored is added.
    """
    restorer = _Restorer(program, model, owners)
    for graph in program.graphs:
        restorer.restore(graph)


class _Restorer:
    def __init__(self, program: Program, model: nn.Module, owners: dict[int, str]) -> None:
        self._program = program
        self._owners = owners
        self._matrices = list(_matrices(model))
        self._norms = list(_norms(model))
        self._found: dict[int, tuple[_Matrix, _Norm] | None] = {}
        self._stored: dict[int, int] = {}
        for buffer, name in owners.items():
            self._stored.update({id(m): buffer for m in self._matrices if m.name == name})

    def restore(self, graph: Any) -> None:
        """Change one subgraph."""
        editor = Editor(self._program, graph)
        applied: dict[tuple[int, int], int] = {}
        for operator in editor.operators():
            found = self._explained(graph, operator)
            if found is None:
                continue
            matrix, norm = found
            key = (int(operator.inputs[0]), id(norm))
            if key not in applied:
                applied[key] = self._normed(editor, key[0], norm)
            weights = editor.tensor(
                matrix.name, matrix.weight.shape, Type.FLOAT32, buffer=self._buffer(matrix)
            )
            bias = -1 if matrix.bias is None else self._vector(editor, matrix.bias)
            operator.inputs = np.array([applied[key], weights, bias], np.int32)
        graph.operators = in_order(graph)

    def _explained(self, graph: Any, operator: Any) -> tuple[_Matrix, _Norm] | None:
        if self._program.kind(operator) != Kind.FULLY_CONNECTED:
            return None
        tensor = graph.tensors[operator.inputs[1]]
        values = self._program.values(tensor)
        if values is None or values.size < SMALL_ELEMENTS or tensor.buffer in self._owners:
            return None
        if tensor.buffer not in self._found:
            self._found[tensor.buffer] = self._search(values)
        return self._found[tensor.buffer]

    def _search(self, values: Array) -> tuple[_Matrix, _Norm] | None:
        for matrix in self._matrices:
            if matrix.weight.shape != values.shape:
                continue
            for norm in self._norms:
                if len(norm.gamma) != values.shape[1]:
                    continue
                # Two rows tell most matrices apart.
                if all(
                    np.allclose(values[part], matrix.weight[part] * norm.gamma, _CLOSE, 1e-7)
                    for part in (slice(0, 2), slice(None))
                ):
                    return matrix, norm
        return None

    def _normed(self, editor: Editor, source: int, norm: _Norm) -> int:
        """What the whole norm gives: made already, for a sum further on, or here."""
        found = self._applied(editor, source, Kind.MUL, norm.gamma)
        if found is not None and norm.beta is not None:
            found = self._applied(editor, found, Kind.ADD, norm.beta)
        if found is not None:
            return found
        shape = shape_of(editor.graph, source)
        gamma = self._vector(editor, norm.gamma)
        made = editor.emit(editor.before, "MUL", [source, gamma], shape)
        if norm.beta is None:
            return made
        return editor.emit(editor.before, "ADD", [made, self._vector(editor, norm.beta)], shape)

    def _applied(self, editor: Editor, source: int, kind: int, vector: Array) -> int | None:
        for reader in readers(editor.graph, source):
            if self._program.kind(reader) != kind:
                continue
            others = [int(i) for i in reader.inputs if int(i) != source]
            values = self._program.values(editor.graph.tensors[others[0]]) if others else None
            if values is None or values.size != vector.size:
                continue
            if np.allclose(values.reshape(-1), vector, _CLOSE, 1e-7):
                return int(reader.outputs[0])
        return None

    def _buffer(self, matrix: _Matrix) -> int:
        """The checkpoint's own weights, stored once."""
        if id(matrix) not in self._stored:
            self._stored[id(matrix)] = self._program.store(matrix.weight)
            self._owners[self._stored[id(matrix)]] = matrix.name
        return self._stored[id(matrix)]

    def _vector(self, editor: Editor, values: Array) -> int:
        buffer = self._program.store(values)
        return editor.tensor("vector", values.shape, Type.FLOAT32, buffer=buffer)


def _matrices(model: nn.Module) -> Iterator[_Matrix]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            vectors = dict(module.named_parameters(recurse=False))
            yield _Matrix(name, _values(vectors["weight"]), _optional(vectors.get("bias")))


def _norms(model: nn.Module) -> Iterator[_Norm]:
    """Modules with a vector to multiply by, and perhaps one to add."""
    for module in model.modules():
        vectors = dict(module.named_parameters(recurse=False))
        if "weight" in vectors and vectors["weight"].dim() == 1:
            yield _Norm(_values(vectors["weight"]), _optional(vectors.get("bias")))


def _optional(parameter: torch.Tensor | None) -> Array | None:
    return None if parameter is None else _values(parameter)


def _values(parameter: torch.Tensor) -> Array:
    found: Array = parameter.detach().float().cpu().numpy()
    return found
