"""MIL operators that write elements into a copy of a tensor, at places told by another.

Each function takes MIL's own parameter names and defaults. Raises IndexError out of bounds, where
a device does anything; iOS 17 added `validate_indices` and took negative indices away.
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


def _written(data: Array, places: tuple[Any, ...], updates: Array, mode: str) -> Array:
    """A copy of data with the updates; those of one place are applied one after the other."""
    changed = data.copy()
    if mode == "update":
        changed[places] = updates
    elif mode in _MODES:
        _MODES[mode].at(changed, places, updates.astype(data.dtype, copy=False))
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
    """Slices along an axis, one for each index."""
    axis = int(axis) % data.ndim
    checked_indices(indices, data.shape[axis], negative=validate_indices is None)
    return _written(data, (*(slice(None),) * axis, indices), updates, mode)


def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """One element for each index, at its own place in all other dimensions."""
    axis = int(axis) % data.ndim
    checked_indices(indices, data.shape[axis], negative=validate_indices is None)
    grid = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    grid[axis] = indices
    return _written(data, tuple(grid), updates, mode)


def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """Slices at the coordinates in the last dimension of `indices`."""
    coordinates = np.moveaxis(indices, -1, 0)
    for size, column in zip(data.shape, coordinates, strict=False):
        checked_indices(column, size, negative=validate_indices is None)
    return _written(data, tuple(coordinates), updates, mode)


SCATTER: dict[str, Callable[..., Array]] = {
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
