"""How many threads numpy's matrix products use, for a while."""

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
    """Matrix products in the block use `count` threads; the number before is restored.

    Threads of OpenBLAS wait for each other without sleeping: on a machine whose cores are taken by
    other processes, two can be twenty times slower than one. Where numpy is not the wheel for
    Linux this changes nothing.
    """
    controls = _controls()
    if controls is None:
        yield
        return
    get, put = controls
    before = get()
    put(count)
    try:
        yield
    finally:
        put(before)


@functools.cache
def _controls() -> tuple[Any, Any] | None:
    """OpenBLAS' functions that tell and set its number of threads, if numpy carries it."""
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
