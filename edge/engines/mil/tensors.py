"""MIL operators that move, select, order or count elements of tensors.

Each function takes MIL's own parameter names and defaults; sizes and axes arrive as int arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge.engines.base import Array

_INT32_MAX = np.iinfo(np.int32).max


def _ints(values: Array | Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in np.atleast_1d(values))


def checked_indices(indices: Array, size: int, *, negative: bool) -> Array:
    """Return `indices` if all are within a dimension of this size; raises IndexError otherwise."""
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        if high >= size or low < (-size if negative else 0):
            wrong = high if high >= size else low
            raise IndexError(f"index {wrong} is out of bounds for a dimension of size {size}")
    return indices


def gather(
    x: Array,
    indices: Array,
    axis: Array | int = 0,
    batch_dims: Array | int = 0,
    validate_indices: Array | None = None,
) -> Array:
    """Gather slices of x along an axis; raises IndexError out of bounds, undefined on a device.

    iOS 17 added `validate_indices` and removed negative indices from the definition.
    """
    axis, batch_dims = int(axis) % max(x.ndim, 1), int(batch_dims)
    checked_indices(indices, x.shape[axis], negative=validate_indices is None)
    if batch_dims == 0:
        return np.take(x, indices, axis)
    batch = x.shape[:batch_dims]
    flat_x = x.reshape(-1, *x.shape[batch_dims:])
    flat_indices = indices.reshape(flat_x.shape[0], *indices.shape[batch_dims:])
    axis -= batch_dims
    rows = [np.take(a, b, axis) for a, b in zip(flat_x, flat_indices, strict=True)]
    return np.stack(rows).reshape(*batch, *rows[0].shape)


def gather_along_axis(
    x: Array, indices: Array, axis: Array | int = 0, validate_indices: Array | None = None
) -> Array:
    """Gather one element of x for each index; all other dimensions are equal."""
    axis = int(axis)
    checked_indices(indices, x.shape[axis], negative=validate_indices is None)
    return np.take_along_axis(x, indices.astype(np.int64), axis)


def gather_nd(
    x: Array,
    indices: Array,
    batch_dims: Array | int = 0,
    validate_indices: Array | None = None,
) -> Array:
    """Gather slices of x at the coordinates in the last dimension of `indices`."""
    batch_dims = int(batch_dims)
    coordinates = np.moveaxis(indices, -1, 0)
    for size, column in zip(x.shape[batch_dims:], coordinates, strict=False):
        checked_indices(column, size, negative=validate_indices is None)
    grids = [
        np.arange(x.shape[dim]).reshape((-1,) + (1,) * (indices.ndim - 2 - dim))
        for dim in range(batch_dims)
    ]
    return x[(*grids, *coordinates)]


def reshape(x: Array, shape: Array) -> Array:
    """Reshape; -1 stands for the remaining size, 0 for the size of x in that dimension."""
    sizes = _ints(shape)
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def _slices(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> tuple[slice, ...]:
    def flags(mask: Array | None) -> list[bool]:
        return [False] * x.ndim if mask is None else [bool(flag) for flag in mask]

    steps = (1,) * x.ndim if stride is None else _ints(stride)
    described = zip(
        _ints(begin),
        _ints(end),
        steps,
        *map(flags, (begin_mask, end_mask, squeeze_mask)),
        strict=True,
    )
    return tuple(
        slice(first, None, _INT32_MAX)
        if squeezed
        else slice(None if open_begin else first, None if open_end else last, step)
        for first, last, step, open_begin, open_end, squeezed in described
    )


def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """Return x[begin:end:stride] per dimension; a squeezed dimension is indexed at `begin`."""
    selected = x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]
    if squeeze_mask is None:
        return selected
    return selected.squeeze(tuple(int(axis) for axis in np.flatnonzero(squeeze_mask)))


def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """Return a copy of x with one slice replaced."""
    where = _slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    changed = x.copy()
    changed[where] = update.reshape(changed[where].shape)
    return changed


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """Return `size` elements from `begin`; -1 stands for all that follow."""
    starts = [first + x.shape[i] if first < 0 else first for i, first in enumerate(_ints(begin))]
    return x[
        tuple(
            slice(first, None if count == -1 else first + count)
            for first, count in zip(starts, _ints(size), strict=True)
        )
    ]


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Drop dimensions of size one; a named dimension of another size stays, as in PyTorch."""
    named = range(x.ndim) if axes is None else _ints(axes)
    return x.squeeze(tuple(axis for axis in named if x.shape[axis] == 1))


def expand_dims(x: Array, axes: Array) -> Array:
    """Insert dimensions of size one."""
    return np.expand_dims(x, _ints(axes))


def transpose(x: Array, perm: Array) -> Array:
    """Permute dimensions."""
    return x.transpose(_ints(perm)) if x.ndim else x


def concat(values: tuple[Array, ...], axis: Array | int, interleave: Array | bool = False) -> Array:
    """Concatenate along an axis, in blocks or interleaved; scalars give a vector."""
    axis = int(axis)
    if bool(interleave):
        stacked = np.stack(values, axis % values[0].ndim + 1)
        shape = list(values[0].shape)
        shape[axis] *= len(values)
        return stacked.reshape(shape)
    return np.concatenate([np.atleast_1d(value) for value in values], axis)


def stack(values: tuple[Array, ...], axis: Array | int) -> Array:
    """Join along a new axis."""
    return np.stack(values, int(axis))


def split(
    x: Array,
    axis: Array | int,
    num_splits: Array | None = None,
    split_sizes: Array | None = None,
) -> tuple[Array, ...]:
    """Split along an axis into equal parts or parts of given sizes."""
    if split_sizes is not None:
        return tuple(np.split(x, np.cumsum(_ints(split_sizes))[:-1], int(axis)))
    if num_splits is None:
        raise ValueError("neither num_splits nor split_sizes is given")
    return tuple(np.split(x, int(num_splits), int(axis)))


def tile(x: Array, reps: Array) -> Array:
    """Repeat along each dimension."""
    return np.tile(x, _ints(reps))


def reverse(x: Array, axes: Array | None = None) -> Array:
    """Flip dimensions, all of them by default."""
    return np.flip(x, None if axes is None else _ints(axes))


def fill(shape: Array, value: Array | float = 0.0) -> Array:
    """Return a tensor filled with one value."""
    return np.full(_ints(shape), value)


def fill_like(ref_tensor: Array, value: Array | float = 0.0) -> Array:
    """Return a tensor filled with one value, with the shape of another tensor."""
    return np.full(ref_tensor.shape, value)


def range_1d(end: Array, start: Array, step: Array) -> Array:
    """Return the numbers from start to end, end excluded."""
    return np.arange(start.item(), end.item(), step.item()).astype(start.dtype)


def one_hot(
    indices: Array,
    one_hot_vector_size: Array,
    axis: Array | int = -1,
    on_value: Array | float = 1,
    off_value: Array | float = 0,
) -> Array:
    """Add a dimension that is `on_value` at each index and `off_value` elsewhere."""
    hot = indices[..., None] == np.arange(int(one_hot_vector_size))
    return np.moveaxis(np.where(hot, on_value, off_value), -1, int(axis))


def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Array | float = 0.0) -> Array:
    """Pad the last dimensions; `pad` holds (before, after) for each of them."""
    widths = np.zeros((x.ndim, 2), np.int64)
    given = pad.reshape(-1, 2)
    widths[x.ndim - given.shape[0] :] = given
    if mode == "constant":
        return np.pad(x, widths, constant_values=constant_val)
    modes: dict[str, Any] = {"reflect": "reflect", "replicate": "edge"}
    return np.pad(x, widths, modes[mode])


def band_part(x: Array, lower: Array | int = -1, upper: Array | int = -1) -> Array:
    """Set elements outside a band around the diagonal to zero; a negative width has no limit."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    lower_width, upper_width = int(lower), int(upper)
    in_band = np.ones(x.shape[-2:], bool)
    if lower_width >= 0:
        in_band &= rows - columns <= lower_width
    if upper_width >= 0:
        in_band &= columns - rows <= upper_width
    return np.where(in_band, x, np.zeros((), x.dtype))


def cumsum(
    x: Array,
    axis: Array | int = 0,
    exclusive: Array | bool = False,
    reverse: Array | bool = False,
) -> Array:
    """Cumulative sum; exclusive omits the element itself, reverse starts at the end."""
    axis = int(axis)
    ordered = np.flip(x, axis) if bool(reverse) else x
    total = np.cumsum(ordered, axis, dtype=x.dtype)
    if bool(exclusive):
        total = np.roll(total, 1, axis)
        total[(slice(None),) * (axis % x.ndim) + (0,)] = 0
    return np.flip(total, axis) if bool(reverse) else total


def argsort(x: Array, axis: Array | int = -1, ascending: Array | bool = False) -> Array:
    """Indices that order x; the first of equal elements comes first."""
    if bool(ascending):
        return np.argsort(x, int(axis), kind="stable")
    wide = x if x.dtype.kind == "f" else x.astype(np.int64)
    return np.argsort(-wide, int(axis), kind="stable")


def topk(
    x: Array,
    k: Array | int = 1,
    axis: Array | int = -1,
    ascending: Array | bool = False,
    sort: Array | bool = True,
    return_indices: Array | bool = True,
    output_indices_dtype: str = "int32",
) -> Array | tuple[Array, Array]:
    """The k largest (or smallest) elements along an axis, sorted, with their indices."""
    axis = int(axis)
    count = x.shape[axis] if int(k) == -1 else int(k)
    order = np.take(argsort(x, axis, ascending), np.arange(count), axis)
    values = np.take_along_axis(x, order, axis)
    return (values, order) if bool(return_indices) else values


def shape(x: Array) -> Array:
    """The shape of x as a vector."""
    return np.array(x.shape, np.int32)


def non_zero(x: Array) -> Array:
    """Coordinates of the elements that are not zero, one row each."""
    return np.argwhere(x)


TENSORS: dict[str, Callable[..., Array | tuple[Array, ...]]] = {
    "argsort": argsort,
    "band_part": band_part,
    "concat": concat,
    "cumsum": cumsum,
    "expand_dims": expand_dims,
    "fill": fill,
    "fill_like": fill_like,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "non_zero": non_zero,
    "one_hot": one_hot,
    "pad": pad,
    "range_1d": range_1d,
    "reshape": reshape,
    "reverse": reverse,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "topk": topk,
    "transpose": transpose,
}
