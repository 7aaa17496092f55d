"""MIL operators that decompress weights, and the two that quantize at run time.

The `constexpr_` operators have constant inputs only and run once, when a program is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.package import unpack_bits


def _along(parameter: Array, rank: int, axis: Array | int | None) -> Array:
    """Reshape a vector to lie along one axis of a tensor of this rank; scalars are unchanged."""
    if parameter.ndim == 0 or axis is None:
        return parameter
    shape = [1] * rank
    shape[int(axis)] = -1
    return parameter.reshape(shape)


def affine_dequantize(
    quantized_data: Array, zero_point: Array, scale: Array, axis: Array | int
) -> Array:
    """Return scale * (q - zero_point); both are per tensor or per channel."""
    return dequantize(quantized_data, scale, zero_point, axis)


def dequantize(
    input: Array,
    scale: Array,
    zero_point: Array | None = None,
    axis: Array | int | None = None,
) -> Array:
    """Return scale * (q - zero_point); both are per tensor or per channel."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _along(zero_point.astype(np.float32), values.ndim, axis)
    values *= _along(scale, values.ndim, axis)
    return values


def quantize(
    input: Array,
    scale: Array,
    output_dtype: str,
    zero_point: Array | None = None,
    axis: Array | int | None = None,
) -> Array:
    """Return clip(round(x / scale) + zero_point), in the range of int8 or uint8."""
    values = np.round(input / _along(scale, input.ndim, axis))
    if zero_point is not None:
        values += _along(zero_point.astype(np.float32), input.ndim, axis)
    limits = np.iinfo(output_dtype)
    return np.clip(values, limits.min, limits.max)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Return scale * (q - offset), one scale for each block; all three have the same rank.

    A dimension of size d under s scales is made of s blocks of d / s elements.
    """
    blocks = [
        part
        for size, count in zip(data.shape, scale.shape, strict=True)
        for part in (count, size // count)
    ]
    spread = [part for count in scale.shape for part in (count, 1)]
    values = data.astype(np.float32).reshape(blocks)
    if offset is not None:
        values -= offset.astype(np.float32).reshape(spread)
    values *= scale.reshape(spread)
    return values.reshape(data.shape)


def lut_to_dense(
    indices: Array,
    lut: Array,
    shape: Array | None = None,
    vector_axis: Array | int | None = None,
) -> Array:
    """Look up weights in a palette.

    iOS 16: `indices` are packed bits, `lut` is (palette,) and `shape` is the result's.
    iOS 18: `indices` is a tensor, `lut` is (*groups, palette, vector), its first dimensions divide
    those of `indices`, and each index becomes a vector laid along `vector_axis`.
    """
    if shape is not None:
        sizes = tuple(int(size) for size in shape)
        bits = int(math.log2(lut.size))
        return lut[unpack_bits(indices, bits, math.prod(sizes))].reshape(sizes)
    groups, palette, width = lut.shape[:-2], lut.shape[-2], lut.shape[-1]
    rows = indices.astype(np.int64)
    if math.prod(groups) > 1:
        rows += palette * _group_numbers(indices.shape, groups)
    values = lut.reshape(-1, width)[rows]
    if width == 1:
        return values[..., 0]
    axis = 0 if vector_axis is None else int(vector_axis) % indices.ndim
    result = list(indices.shape)
    result[axis] *= width
    return np.moveaxis(values, -1, axis + 1).reshape(result)


def _group_numbers(shape: tuple[int, ...], groups: tuple[int, ...]) -> Array:
    """Return the group number of each element, groups counted in row-major order."""
    number = np.zeros((1,) * len(shape), np.int64)
    for axis, (size, count) in enumerate(zip(shape, groups, strict=True)):
        along = np.arange(size) // (size // count)
        number = number * count + _along(along, len(shape), axis)
    return number


def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Return zeros with `nonzero_data` where the mask is set; iOS 16 packs the mask's bits."""
    if shape is not None:
        sizes = tuple(int(size) for size in shape)
        mask = unpack_bits(mask, 1, math.prod(sizes)).reshape(sizes)
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def cast_constant(source_val: Array, output_dtype: str) -> Array:
    """Return the values; the caller converts them to the declared type."""
    return source_val


WEIGHTS: dict[str, Callable[..., Array]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast_constant,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
    "dequantize": dequantize,
    "quantize": quantize,
}
