"""The integers of weights and activations, as `edge.precision` defines them: the same everywhere.

Converters store what the functions on numpy arrays give; those on torch tensors compute what a
model with such integers would, and neither imports torch. A test holds them equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.precision import INT4_BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
# Steps between the extremes of an activation in 8 bits.
_STEPS = 255
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
        scales[part] = symmetric_scales(blocks, top, axis=2)[..., 0]
        values[part] = symmetric_values(blocks, scales[part][..., None], top)
    return values.reshape(count, inputs), scales


def symmetric_scales(blocks: Array, top: int, axis: int | tuple[int, ...]) -> Array:
    """Scales with which the values along some axes lie within -top..top; 1 for zeros."""
    # The extremes one by one: the magnitudes of all weights would be another copy of them.
    furthest = np.maximum(
        blocks.max(axis=axis, keepdims=True), -blocks.min(axis=axis, keepdims=True)
    )
    scales: Array = furthest / np.float32(top)
    return np.where(scales > 0, scales, np.float32(1))


def symmetric_values(blocks: Array, scales: Array, top: int) -> Array:
    """The int8 values of weights under scales that are broadcast to them."""
    values = blocks / scales
    np.rint(values, out=values)
    return np.clip(values, -top, top, out=values).astype(np.int8)


def asymmetric(low: float, high: float) -> tuple[float, int]:
    """The scale of 8 bits over a range of activations, and the unsigned zero point, 0..255.

    The range is widened to hold 0; an empty one has the scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / _STEPS or 1.0
    return scale, min(max(round(-low / scale), 0), _STEPS)


def fake_quantize(weights: Tensor, bits: int, *, whole: bool = False) -> Tensor:
    """Weights (out, in, ...) rounded to what `quantize` stores, in float.

    whole: one scale for all of them.
    """
    rows = weights.reshape(1 if whole else weights.shape[0], -1)
    top = largest(bits)
    blocks = rows if whole else rows.reshape(-1, block_of(rows.shape[1], bits))
    scales = blocks.abs().amax(1, keepdim=True) / top
    scales = scales.masked_fill(scales == 0, 1.0)
    return ((blocks / scales).round().clamp(-top, top) * scales).reshape(weights.shape)


def fake_quantize_activations(values: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """Activations rounded to 8 bits between their extremes, as engines do at run time, in float.

    dims: the dimensions that share a range; by default all.
    """
    dims = tuple(range(values.ndim)) if dims is None else dims
    low = values.amin(dims, keepdim=True).clamp(max=0)
    high = values.amax(dims, keepdim=True).clamp(min=0)
    scale = (high - low) / _STEPS
    scale = scale.masked_fill(scale == 0, 1.0)
    zero = (-low / scale).round()
    return (((values / scale).round() + zero).clamp(0, _STEPS) - zero) * scale
