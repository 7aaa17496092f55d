"""Signals of rows of different lengths on disk: one file a column, rows one after the other.

A file holds nothing but numbers. It only ever grows, so that writing stops with an error where a
disk is full (a file written through a memory map would end the process), and an interrupted one
is cut back to its last whole batch. It is read through a memory map.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from edge.config import Config

Array = npt.NDArray[Any]


class Column(Config):
    """What one file holds for a row of n tokens.

    each: the row's leading axes, of n tokens each: none for `row`, (n,) for `token`, (n, n) for
    `square`. shape: the axes after them.
    """

    name: str
    dtype: Literal["float32", "float16", "int32", "bool"]
    each: Literal["row", "token", "square"]
    shape: tuple[int, ...]

    @property
    def axes(self) -> int:
        """How many leading axes count tokens."""
        return ("row", "token", "square").index(self.each)

    @property
    def file(self) -> str:
        return f"{self.name}.bin"

    def size_bytes(self, lengths: Array) -> int:
        """Of all rows together."""
        cells = int((lengths.astype(np.int64) ** self.axes).sum())
        return cells * math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Writer:
    """Appends rows to the files of `columns`; what a file has beyond `lengths` is cut off.

    lengths: of the rows that are there already.
    """

    def __init__(self, folder: Path, columns: Sequence[Column], lengths: Array) -> None:
        self._columns = columns
        self._files: dict[str, BinaryIO] = {}
        self._stack = ExitStack()
        for column in columns:
            file = self._stack.enter_context((folder / column.file).open("ab"))
            file.truncate(column.size_bytes(lengths))
            self._files[column.name] = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, batch: Mapping[str, Array], lengths: Iterable[int]) -> None:
        """Add a batch: each column (B, L, ..., *shape), with as many L as its axes; cut to n."""
        for column in self._columns:
            values = batch[column.name].astype(column.dtype, copy=False)
            file = self._files[column.name]
            for row, length in zip(values, lengths, strict=True):
                file.write(np.ascontiguousarray(row[(slice(length),) * column.axes]).tobytes())

    def flush(self) -> None:
        """Everything appended so far is on the disk when this returns."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())


class Reader:
    """Rows of one column by their position; lengths: of all rows, in the order of the file."""

    def __init__(self, folder: Path, column: Column, lengths: Array) -> None:
        self.column = column
        cells = lengths.astype(np.int64) ** column.axes * math.prod(column.shape)
        self._ends = np.cumsum(cells)
        self._starts = self._ends - cells
        self._lengths = lengths
        self._values: Array = np.memmap(folder / column.file, dtype=column.dtype, mode="r")

    def read(self, positions: Array, length: int) -> Array:
        """(B, length, ..., *shape), 0 where a row is shorter; float16 comes as float32."""
        column = self.column
        whole = np.dtype("float32" if column.dtype == "float16" else column.dtype)
        batch = np.zeros((len(positions), *[length] * column.axes, *column.shape), whole)
        for row, position in enumerate(positions):
            count = self._lengths[position]
            flat = self._values[self._starts[position] : self._ends[position]]
            place: tuple[Any, ...] = (row, *[slice(count)] * column.axes)
            batch[place] = flat.reshape((*[count] * column.axes, *column.shape))
        return batch
