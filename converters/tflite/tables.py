"""Rows of embedding tables that an exporter turned into constants, looked up again.

Positions are the same for every text, so an exporter copies the first rows of their table, once a
length. A look-up by constant numbers costs nothing, lets all lengths share one table, and narrows
as other embeddings do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from converters.tflite.flatbuffer import Array, Program
from converters.tflite.graph import Editor, Kind, name_of
from converters.tflite.narrow import OUTPUTS
from edge.precision import SMALL_ELEMENTS


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `end` of the table of a module."""

    module: str
    start: int
    end: int


class Tables:
    """The matrices of a model, of which rows are searched."""

    def __init__(self, model: nn.Module) -> None:
        self._tables: dict[str, Array] = {}
        for path, parameter in model.named_parameters():
            if parameter.dim() == 2 and parameter.numel() >= SMALL_ELEMENTS:
                module = path.rpartition(".")[0]
                self._tables[module] = parameter.detach().float().cpu().numpy()

    def find(self, rows: Array) -> Slice | None:
        """Where rows (count, width) stand, one after the other, in a table."""
        count, width = rows.shape
        for module, table in self._tables.items():
            if table.shape[1] != width:
                continue
            for start in np.flatnonzero((table[:, :2] == rows[0, :2]).all(axis=1)):
                if np.array_equal(table[start : start + count], rows):
                    return Slice(module, int(start), int(start) + count)
        return None

    def rows(self, part: Slice) -> Array:
        """Float32 (rows, width)."""
        return self._tables[part.module][part.start : part.end]


def share_tables(program: Program, tables: Tables) -> None:
    """Replace each constant that is part of a table, in all subgraphs, by a look-up."""
    found: dict[int, Slice] = {}
    for tensor, values in _candidates(program):
        if tensor.buffer not in found:
            part = tables.find(values)
            if part is not None:
                found[tensor.buffer] = part
    wanted: dict[str, tuple[int, int]] = {}
    for part in found.values():
        start, end = wanted.get(part.module, (part.start, part.end))
        wanted[part.module] = (min(start, part.start), max(end, part.end))
    stored = {
        module: (start, program.store(tables.rows(Slice(module, start, end))))
        for module, (start, end) in wanted.items()
    }
    for graph in program.graphs:
        _look_up(Editor(program, graph), found, stored)


def _look_up(editor: Editor, found: dict[int, Slice], stored: dict[str, tuple[int, int]]) -> None:
    made: dict[int, int] = {}
    for operator in editor.operators():
        for slot, number in enumerate(operator.inputs):
            tensor = editor.graph.tensors[number]
            if number < 0 or _native(editor.program, operator, slot):
                continue
            if (part := found.get(tensor.buffer)) is None:
                continue
            if tensor.buffer not in made:
                start, buffer = stored[part.module]
                made[tensor.buffer] = _rows(editor, tensor, part, part.start - start, buffer)
            operator.inputs[slot] = made[tensor.buffer]


def _rows(editor: Editor, tensor: Any, part: Slice, offset: int, buffer: int) -> int:
    count, width = part.end - part.start, int(tensor.shape[-1])
    ids = editor.integers("rows", np.arange(offset, offset + count))
    size = len(editor.program.model.buffers[buffer].data) // (4 * width)
    table = editor.tensor(name_of(tensor), (size, width), tensor.type, buffer=buffer)
    rows = editor.emit(editor.first, "EMBEDDING_LOOKUP", [ids, table], (count, width))
    if tuple(tensor.shape) == (count, width):
        return rows
    return editor.reshape(editor.first, rows, tensor.shape)


def _candidates(program: Program) -> Iterator[tuple[Any, Array]]:
    """Float constants (1, ..., rows, width) that no operator multiplies or looks up."""
    for graph in program.graphs:
        for operator in graph.operators:
            for slot, number in enumerate(operator.inputs):
                tensor = graph.tensors[number]
                if number < 0 or _native(program, operator, slot):
                    continue
                values = program.values(tensor)
                if values is None or values.dtype != np.float32 or values.ndim < 2:
                    continue
                if values.size < SMALL_ELEMENTS or math.prod(values.shape[:-2]) != 1:
                    continue
                yield tensor, values.reshape(values.shape[-2:])


def _native(program: Program, operator: Any, slot: int) -> bool:
    """Whether an input of an operator is its weights, which it reads as they are."""
    kind = program.kind(operator)
    return slot == 1 and (kind == Kind.EMBEDDING_LOOKUP or kind in OUTPUTS)
