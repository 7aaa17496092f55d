"""The integers of weights, as `edge.precision` defines them: the same in every format."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.precision import INT4_BLOCK

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 4096


def largest(bits: int) -> int:
    """The largest integer of a width; the smallest is its negative, so that 0 is in the middle."""
    top: int = 2 ** (bits - 1) - 1
    return top


def block_of(inputs: int, bits: int) -> int:
    """How many of the `inputs` of a channel share a scale."""
    return INT4_BLOCK if bits == 4 and inputs % INT4_BLOCK == 0 else inputs


def quantize(rows: Array, bits: int, limit: int | None = None) -> tuple[Array, Array]:
    """Float32 (rows, inputs) as int8 values within -limit..limit, and (rows, blocks) scales.

    limit: `largest(bits)`, or less. A block of zeros stays zeros; its scale is 1.
    """
    count, inputs = rows.shape
    block, top = block_of(inputs, bits), limit or largest(bits)
    values = np.empty((count, inputs // block, block), np.int8)
    scales = np.empty((count, inputs // block), np.float32)
    # A part at a time: the table of a large vocabulary is the largest weight there is.
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        blocks = rows[part].reshape(-1, inputs // block, block)
        found = np.abs(blocks).max(axis=2) / np.float32(top)
        scales[part] = np.where(found > 0, found, np.float32(1))
        values[part] = np.clip(np.rint(blocks / scales[part][..., None]), -top, top)
    return values.reshape(count, inputs), scales
