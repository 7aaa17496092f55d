"""Resident memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


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
