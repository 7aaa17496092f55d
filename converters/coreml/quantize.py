"""The numbers of narrow weights, as `edge.precision` defines them.

Scales and palettes are 16-bit floats, like the arithmetic that uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.quantization import block_of, largest, symmetric_scales, symmetric_values

Array = npt.NDArray[Any]

_FP16_NORMAL = 2.0**-14
_FP16_LEAST = 2.0**-24
# Lloyd's steps; from a good start a few dozen are enough.
_STEPS = 300


@dataclass(frozen=True)
class Scaled:
    """Weights as scale * values, one scale a block; of equal rank.

    A dimension of size d under s scales is made of s blocks of d / s elements.
    """

    values: Array
    scales: Array


def int8(weights: Array, axis: int) -> Scaled:
    """Values within -127..127, one scale for each index of the output axis."""
    counts = [1] * weights.ndim
    counts[axis] = weights.shape[axis]
    return _scaled(weights, largest(8), counts)


def int4(weights: Array, axis: int) -> Scaled:
    """Values within -7..7, one scale for a block of inputs of each index of the output axis."""
    counts = [1] * weights.ndim
    counts[axis] = weights.shape[axis]
    inputs = _input_axis(weights.ndim, axis)
    counts[inputs] = weights.shape[inputs] // block_of(weights.shape[inputs], 4)
    return _scaled(weights, largest(4), counts)


def _input_axis(rank: int, axis: int) -> int:
    """A matrix product's inputs: (..., in, out) and (out, in, ...)."""
    return axis - 1 if axis == rank - 1 else axis + 1


def _scaled(weights: Array, limit: int, counts: list[int]) -> Scaled:
    blocks = weights.astype(np.float32, copy=False).reshape(
        [part for size, n in zip(weights.shape, counts, strict=True) for part in (n, size // n)]
    )
    inside = tuple(range(1, blocks.ndim, 2))
    scales = symmetric_scales(blocks, limit, inside)
    # Where 16 bits hold a scale badly it is rounded up, and the weights counted in what is stored.
    coarse = scales < _FP16_NORMAL
    upwards = np.ceil(scales / np.float32(_FP16_LEAST)) * np.float32(_FP16_LEAST)
    stored = np.where(coarse, np.maximum(upwards, _FP16_LEAST), scales).astype(np.float16)
    divisors = np.where(coarse, stored.astype(np.float32), scales)
    values = symmetric_values(blocks, divisors, limit)
    return Scaled(values.reshape(weights.shape), stored.reshape(counts))


@dataclass(frozen=True)
class Palette:
    """Weights as table[indices]: uint8 indices in the shape of the weights, 2**bits values."""

    indices: Array
    table: Array


def palette(weights: Array, bits: int) -> Palette:
    """The k-means of a tensor, on the distribution of its 16-bit values.

    There are at most 63488 of them, so that a table of millions costs no more than a small one.
    """
    codes = weights.astype(np.float16).view(np.uint16)
    counts = np.bincount(codes.ravel(), minlength=1 << 16)
    present = np.flatnonzero(counts)
    values = present.astype(np.uint16).view(np.float16).astype(np.float64)
    order = np.argsort(values, kind="stable")
    present, values = present[order], values[order]
    table = _means(values, counts[present].astype(np.float64), 1 << bits).astype(np.float16)
    # Looked up by code: the nearest entry of each distinct value.
    middles = (table[1:].astype(np.float64) + table[:-1].astype(np.float64)) / 2
    nearest = np.zeros(1 << 16, np.uint8)
    nearest[present] = np.searchsorted(middles, values)
    return Palette(nearest[codes], table)


def _means(values: Array, counts: Array, size: int) -> Array:
    """Centres of `size` clusters of ascending values that occur `counts` times, ascending.

    Lloyd 1982, "Least squares quantization in PCM", on cumulated sums, from the centres that are
    optimal for a smooth density: their own density is its cube root (Panter and Dite 1951).
    """
    if len(values) <= size:
        return np.concatenate([values, np.repeat(values[-1:], size - len(values))])
    gaps = np.gradient(values)
    share = np.cumsum(np.cbrt(counts * gaps * gaps))
    at = np.searchsorted(share, (np.arange(size) + 0.5) / size * share[-1])
    centres = values[np.minimum(at, len(values) - 1)]
    count = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(counts * values)])
    for _ in range(_STEPS):
        ends = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], ends, [len(values)]])
        members = np.diff(count[edges])
        moved = np.where(members > 0, np.diff(total[edges]) / np.maximum(members, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
