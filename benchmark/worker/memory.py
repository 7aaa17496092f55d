"""Resident memory of this process, and the libraries in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MAPS = Path("/proc/self/maps")


def resident_bytes() -> int:
    """Return the current resident memory."""
    # On Linux without psutil, which a board may lack.
    resident = _status_bytes("VmRSS:")
    if resident is not None:
        return resident
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the peak resident memory so far."""
    # On Linux a process inherits ru_maxrss through exec, so it would include the parent's peak.
    high_water = _status_bytes("VmHWM:")
    if high_water is not None:
        return high_water
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(key: str) -> int | None:
    """Return a value of /proc/self/status in bytes; None on other systems."""
    if sys.platform != "linux":
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[:1] == [key]), None)


def library_bytes(package: str) -> int | None:
    """Return the size on disk of a package's shared libraries in this process; Linux only."""
    spec = importlib.util.find_spec(package)
    if not _MAPS.is_file() or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    lines = (line.split(maxsplit=5) for line in _MAPS.read_text().splitlines())
    paths = {Path(words[5]) for words in lines if len(words) == 6 and ".so" in words[5]}
    sizes = [path.stat().st_size for path in paths if folder in path.parents and path.is_file()]
    return sum(sizes) or None
