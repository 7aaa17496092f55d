"""Resident memory of this process, and the libraries in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MAPS = Path("/proc/self/maps")


def resident_bytes() -> int:
    """Now."""
    # Linux says so itself, and a board need not have psutil.
    found = _status_bytes("VmRSS:")
    if found is not None:
        return found
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most so far."""
    # Linux hands ru_maxrss down from the parent through exec, so it would count the parent's peak.
    found = _status_bytes("VmHWM:")
    if found is not None:
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(key: str) -> int | None:
    """What Linux says of this process; None elsewhere."""
    if sys.platform != "linux":
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[:1] == [key]), None)


def library_bytes(package: str) -> int | None:
    """Size on disk of a package's shared libraries that this process has opened; Linux only."""
    found = importlib.util.find_spec(package)
    if not _MAPS.is_file() or found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))).resolve()
    lines = (line.split(maxsplit=5) for line in _MAPS.read_text().splitlines())
    paths = {Path(words[5]) for words in lines if len(words) == 6 and ".so" in words[5]}
    sizes = [path.stat().st_size for path in paths if folder in path.parents and path.is_file()]
    return sum(sizes) or None
