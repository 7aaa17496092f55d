"""MIL operators that write elements into a copy of a tensor, at given indices.

Each function takes MIL's own parameter names and defaults. Indices out of bounds raise IndexError;
on a device the result is undefined. iOS 17 added `validate_indices` and removed negative indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.tensors import checked_indices

_MODES: dict[str, np.ufunc] = {
    "add": np.add,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "sub": np.subtract,
}


def _with_updates(data: Array, indices: tuple[Any, ...], updates: Array, mode: str) -> Array:
    """Return a copy of data with the updates; repeated indices are applied in order."""
    changed = data.copy()
    if mode == "update":
        changed[indices] = updates
    elif mode in _MODES:
        _MODES[mode].at(changed, indices, updates.astype(data.dtype, copy=False))
    else:
        raise ValueError(f"unknown mode '{mode}'")
    return changed


def scatter(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """Write slices along an axis, one for each index."""
    axis = int(axis) % data.ndim
    checked_indices(indices, data.shape[axis], negative=validate_indices is None)
    return _with_updates(data, (*(slice(None),) * axis, indices), updates, mode)


def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """Write one element for each index, at its own position in all other dimensions."""
    axis = int(axis) % data.ndim
    checked_indices(indices, data.shape[axis], negative=validate_indices is None)
    grid = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    grid[axis] = indices
    return _with_updates(data, tuple(grid), updates, mode)


def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """Write slices at the coordinates in the last dimension of `indices`."""
    coordinates = np.moveaxis(indices, -1, 0)
    for size, column in zip(data.shape, coordinates, strict=False):
        checked_indices(column, size, negative=validate_indices is None)
    return _with_updates(data, tuple(coordinates), updates, mode)


SCATTER: dict[str, Callable[..., Array]] = {
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
