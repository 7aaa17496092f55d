"""Control of the number of threads of numpy's matrix products."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# OpenBLAS as numpy's wheels for Linux name it, with 64-bit and 32-bit indices.
_SUFFIXES = ("64_", "")


@contextlib.contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Run matrix products in the block with `count` threads, then restore the number.

    OpenBLAS threads busy-wait for each other: on a machine whose cores are busy with other
    processes, two can be twenty times slower than one. Without numpy's Linux wheel this has no
    effect.
    """
    controls = _controls()
    if controls is None:
        yield
        return
    get_threads, set_threads = controls
    previous = get_threads()
    set_threads(count)
    try:
        yield
    finally:
        set_threads(previous)


@functools.cache
def _controls() -> tuple[Any, Any] | None:
    """Return OpenBLAS' functions that get and set its number of threads, if numpy includes it."""
    folder = Path(np.__file__).parent.parent / "numpy.libs"
    for path in folder.glob("libscipy_openblas*.so*"):
        library = ctypes.CDLL(str(path))
        for suffix in _SUFFIXES:
            with contextlib.suppress(AttributeError):
                get = library[f"scipy_openblas_get_num_threads{suffix}"]
                put = library[f"scipy_openblas_set_num_threads{suffix}"]
                get.argtypes, get.restype = (), ctypes.c_int
                put.argtypes, put.restype = (ctypes.c_int,), None
                return get, put
    return None
