"""The integers of weights, as `edge.precision` defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.precision import INT4_BLOCK

Array = npt.NDArray[Any]
INT8_LIMIT = 127
INT4_LIMIT = 7
# Stored nibbles are unsigned.
NIBBLE_ZERO = 8


def int8_rows(rows: Array, limit: int = INT8_LIMIT) -> tuple[Array, Array]:
    """Rows (n, k) as int8 within -limit..limit, and their scales (n,), float32."""
    scales = _scales(np.abs(rows).max(axis=1), limit)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def int4_rows(rows: Array) -> tuple[Array, Array]:
    """Rows (n, k) as int8 within -7..7, and the scales (n, blocks), float32, of their blocks."""
    count, width = rows.shape
    block = int4_block(width)
    blocks = rows.reshape(count, -1, block)
    scales = _scales(np.abs(blocks).max(axis=2), INT4_LIMIT)
    return np.rint(blocks / scales[:, :, None]).astype(np.int8).reshape(count, width), scales


def int4_block(width: int) -> int:
    """How many of the `width` inputs of a channel share a scale."""
    return INT4_BLOCK if width % INT4_BLOCK == 0 else width


def nibbles(values: Array) -> Array:
    """Integers (n, k) of -8..7, two to a byte, the first one low: uint8 (n, ceil(k / 2))."""
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    unsigned = (values + NIBBLE_ZERO).astype(np.uint8)
    packed: Array = unsigned[:, ::2] | (unsigned[:, 1::2] << 4)
    return packed


def _scales(largest: Array, limit: int) -> Array:
    # A row of zeros has any scale; 1 divides.
    scales: Array = np.where(largest > 0, largest / limit, 1).astype(np.float32)
    return scales
