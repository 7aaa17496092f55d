"""Resident memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most so far."""
    # Linux hands ru_maxrss down from the parent through exec, so it would count the parent's peak.
    if sys.platform == "linux":
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
