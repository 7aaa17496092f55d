"""Return of freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect garbage, and let the C library return free memory to the system where supported.

    glibc keeps freed memory, which can be gigabytes after a conversion.
    """
    gc.collect()
    if sys.platform == "linux":
        # Other C libraries on Linux lack the function.
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
