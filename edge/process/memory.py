"""Memory that was freed, given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect garbage, and have the C library return free memory to the system, where it can.

    glibc keeps what was freed for itself: after a conversion that can be gigabytes.
    """
    gc.collect()
    if sys.platform == "linux":
        # Other C libraries of Linux have no such function.
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
