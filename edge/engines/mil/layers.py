"""MIL operators with arithmetic across elements: products, convolutions, norms, sums.

Each function takes MIL's own parameter names and defaults. Floats are float32 arrays whatever the
program says, so sums are accumulated in 32 bits; the caller rounds results to the declared type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.elementwise import softmax


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Multiply x (..., in) by the transpose of weight (out, in) and add bias (out)."""
    # One matrix product instead of one per leading dimension.
    product = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        product += bias
    return product.reshape(*x.shape[:-1], weight.shape[0])


def matmul(
    x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False
) -> Array:
    """Matrix product over the last two dimensions, the others broadcast."""
    left = x.swapaxes(-1, -2) if bool(transpose_x) else x
    right = y.swapaxes(-1, -2) if bool(transpose_y) else y
    return np.matmul(left, right)


def einsum(values: tuple[Array, ...], equation: str) -> Array:
    """Einstein summation."""
    return np.einsum(equation, *values, optimize=True)


def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """softmax(Q K^T / sqrt(E) + mask) V, Vaswani et al. 2017, equation 1.

    Shapes: query (..., L, E), key (..., S, E), value (..., S, V), mask broadcast to (..., L, S),
    either added or, if boolean, True where a position takes part.
    """
    scores = np.matmul(query, key.swapaxes(-1, -2)) / np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        if attn_mask.dtype == np.bool_:
            scores = np.where(attn_mask, scores, np.float32(-np.inf))
        else:
            scores = scores + attn_mask
    return np.matmul(softmax(scores), value)


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """Convolution of x (n, C, *D) with weight (C_out, C / groups, *K) over 1 to 3 dimensions."""
    spatial = x.ndim - 2
    steps = [1] * spatial if strides is None else [int(step) for step in strides]
    spread = [1] * spatial if dilations is None else [int(gap) for gap in dilations]
    # Number of elements per dimension that a dilated kernel covers.
    extent = [(k - 1) * gap + 1 for k, gap in zip(weight.shape[2:], spread, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_padding(pad_type, pad, x.shape[2:], extent, steps)])
    axes = tuple(range(2, x.ndim))
    windows: Array = np.lib.stride_tricks.sliding_window_view(padded, extent, axes)
    # windows: (n, C, *out, *K) once strides and dilations have thinned it out.
    windows = windows[
        (slice(None), slice(None), *(slice(None, None, s) for s in [*steps, *spread]))
    ]
    out_shape = windows.shape[2 : 2 + spatial]
    count, groups = x.shape[0], int(groups)
    # columns: (n, groups, positions, C / groups * prod(K))
    columns = windows.reshape(count, groups, -1, math.prod(out_shape), math.prod(weight.shape[2:]))
    columns = columns.transpose(0, 1, 3, 2, 4).reshape(count, groups, math.prod(out_shape), -1)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    product = np.matmul(columns, kernels).swapaxes(2, 3)
    result = product.reshape(count, weight.shape[0], *out_shape)
    return result if bias is None else result + bias.reshape(-1, *(1,) * spatial)


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """Transposed convolution of x (n, C, *D) with weight (C, C_out / groups, *K).

    It is a convolution of x, dilated by the strides, with the flipped kernel; `pad` is the number
    of elements to crop.
    """
    spatial = x.ndim - 2
    steps = [1] * spatial if strides is None else [int(step) for step in strides]
    gaps = [1] * spatial if dilations is None else [int(gap) for gap in dilations]
    margins = [(k - 1) * gap for k, gap in zip(weight.shape[2:], gaps, strict=True)]
    uncropped = conv(
        _spread(x, steps),
        _flipped(weight, int(groups)),
        pad_type="custom",
        pad=np.array([[size, size] for size in margins]),
        dilations=np.array(gaps),
        groups=groups,
    )
    crops = [(0, 0)] * spatial
    if pad_type == "custom" and pad is not None:
        crops = [(int(before), int(after)) for before, after in pad.reshape(-1, 2)]
    elif pad_type == "same":
        totals = np.array(uncropped.shape[2:]) - np.array(x.shape[2:]) * steps
        crops = [(int(total) // 2, int(total) - int(total) // 2) for total in totals]
    sizes = [
        d - before - after for d, (before, after) in zip(uncropped.shape[2:], crops, strict=True)
    ]
    if output_shape is not None:
        sizes = [int(size) for size in output_shape[2:]]
    return _cropped(uncropped, [before for before, _ in crops], sizes, bias)


def _spread(x: Array, steps: list[int]) -> Array:
    """Insert zeros between the elements of the spatial dimensions."""
    sizes = ((size - 1) * step + 1 for size, step in zip(x.shape[2:], steps, strict=True))
    spread = np.zeros((*x.shape[:2], *sizes), x.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, step) for step in steps))] = x
    return spread


def _flipped(weight: Array, groups: int) -> Array:
    """Flip kernels and convert (C, C_out / groups, *K) to the (C_out, C / groups, *K) of `conv`."""
    kernels = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    return np.flip(kernels.reshape(-1, *kernels.shape[2:]), tuple(range(2, weight.ndim)))


def _cropped(x: Array, starts: list[int], sizes: list[int], bias: Array | None) -> Array:
    """Crop the spatial dimensions of x, with zeros beyond its end, and add the bias."""
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    missing = [max(end - available, 0) for end, available in zip(ends, x.shape[2:], strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *((0, extra) for extra in missing)])
    slices = (slice(start, end) for start, end in zip(starts, ends, strict=True))
    result = padded[(slice(None), slice(None), *slices)]
    return result if bias is None else result + bias.reshape(-1, *(1,) * len(sizes))


def instance_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """Normalise each channel of each sample of x (n, C, ...), Ulyanov et al. 2016, equation 4."""
    spatial = tuple(range(2, x.ndim))
    channels = (-1,) + (1,) * (x.ndim - 2)
    result = layer_norm(x, np.array(spatial), epsilon=epsilon)
    if gamma is not None:
        result *= gamma.reshape(channels)
    return result if beta is None else result + beta.reshape(channels)


def _padding(
    pad_type: str, pad: Array | None, sizes: tuple[int, ...], extent: list[int], steps: list[int]
) -> list[tuple[int, int]]:
    if pad_type == "custom":
        if pad is None:
            raise ValueError("pad_type is custom and pad is missing")
        return [(int(before), int(after)) for before, after in pad.reshape(-1, 2)]
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type not in {"same", "same_lower"}:
        raise ValueError(f"unknown pad_type '{pad_type}'")
    pairs = []
    for size, kernel, step in zip(sizes, extent, steps, strict=True):
        total = max((math.ceil(size / step) - 1) * step + kernel - size, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if pad_type == "same" else (large, small))
    return pairs


def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, Ba et al. 2016, equation 4."""
    reduced_axes = tuple(range(x.ndim)) if axes is None else tuple(int(a) % x.ndim for a in axes)
    reduced_shape = [size if axis in reduced_axes else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(axis=reduced_axes, keepdims=True)
    variance = np.square(centred).mean(axis=reduced_axes, keepdims=True)
    centred /= np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        centred *= gamma.reshape(reduced_shape)
    if beta is not None:
        centred += beta.reshape(reduced_shape)
    return centred


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """Normalise each channel of x (n, C, ...) with a stored mean and variance."""
    channels = (-1,) + (1,) * (x.ndim - 2)
    scale = 1.0 / np.sqrt(variance + np.float32(epsilon))
    scale = scale if gamma is None else scale * gamma
    result = (x - mean.reshape(channels)) * scale.reshape(channels)
    return result if beta is None else result + beta.reshape(channels)


def l2_norm(x: Array, epsilon: Array | float = 1e-6) -> Array:
    """Divide x by sqrt(sum of squares + epsilon), the sum over the last three dimensions."""
    total = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(total + np.float32(epsilon))


def _reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def operator(x: Array, axes: Array | None = None, keep_dims: Array | bool = False) -> Array:
        over = None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes))
        return function(x, axis=over, keepdims=bool(keep_dims))

    return operator


def _index_reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def operator(
        x: Array,
        axis: Array | int = -1,
        keep_dims: Array | bool = False,
        output_dtype: str = "int32",
    ) -> Array:
        return function(x, axis=int(axis), keepdims=bool(keep_dims))

    return operator


def _sum_square(x: Array, **how: Any) -> Array:
    return np.sum(np.square(x), **how)


def _l2(x: Array, **how: Any) -> Array:
    return np.sqrt(_sum_square(x, **how))


def _l1(x: Array, **how: Any) -> Array:
    return np.sum(np.abs(x), **how)


def _log_sum(x: Array, **how: Any) -> Array:
    return np.log(np.sum(x, **how))


def _log_sum_exp(x: Array, **how: Any) -> Array:
    top = np.max(x, axis=how["axis"], keepdims=True)
    total = np.log(np.sum(np.exp(x - top), axis=how["axis"], keepdims=True)) + top
    return total if how["keepdims"] else total.squeeze(how["axis"])


LAYERS: dict[str, Callable[..., Array | tuple[Array, ...]]] = {
    "batch_norm": batch_norm,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "einsum": einsum,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "linear": linear,
    "matmul": matmul,
    "reduce_argmax": _index_reduction(np.argmax),
    "reduce_argmin": _index_reduction(np.argmin),
    "reduce_l1_norm": _reduction(_l1),
    "reduce_l2_norm": _reduction(_l2),
    "reduce_log_sum": _reduction(_log_sum),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean),
    "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(_sum_square),
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
