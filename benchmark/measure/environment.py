"""Properties and current state of this machine. A missing file gives None, never an error."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import psutil

from benchmark.schema import Conditions, DeviceInfo
from edge.process import processor

_PACKAGES = (
    "torch",
    "transformers",
    "onnxruntime",
    "ai-edge-litert",
    "coremltools",
    "numpy",
)
_CPU = Path("/sys/devices/system/cpu")


@lru_cache(maxsize=1)
def describe(driver: str = "local") -> DeviceInfo:
    """Describe this machine."""
    return DeviceInfo(
        driver=driver,
        kind="emulated" if _emulated() else "real",
        model=processor.name(),
        soc=_text(Path("/sys/devices/soc0/soc_id")),
        abi=platform.machine(),
        cores=processor.usable_cores(),
        cpu_features=processor.features(),
        os=_system(),
        ram_mb=int(psutil.virtual_memory().total // 1_000_000),
        versions=_versions(),
    )


def conditions() -> Conditions:
    """Read the current load, clock frequency and temperature."""
    try:
        load: tuple[float, float, float] | None = os.getloadavg()
    except OSError:
        load = None
    return Conditions(
        at_utc=utc_now(),
        load_average=load,
        governor=_text(_CPU / "cpu0/cpufreq/scaling_governor"),
        frequency_mhz=_frequencies(),
        temperature_c=_temperature(),
        busy_s=_busy_s(),
    )


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def affinity() -> tuple[int, ...] | None:
    """Return the processors this process may use, or None if the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return tuple(sorted(os.sched_getaffinity(0)))


@lru_cache(maxsize=1)
def commit(folder: Path) -> str | None:
    """Return the commit of a checkout; None if `folder` is not one."""
    if not (folder / ".git").exists():
        return None
    return _output("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")


def _emulated() -> bool:
    """Return True on a processor that QEMU emulates, in user or system mode."""
    names = f"{processor.cpuinfo('model name')} {processor.cpuinfo('vendor_id')}"
    return "QEMU" in names or "TCG" in names


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _frequencies() -> tuple[float, float] | None:
    values = [
        int(text) / 1000
        for path in _CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        if (text := _text(path)) and text.isdigit()
    ]
    return (min(values), max(values)) if values else None


def _temperature() -> float | None:
    """Return the temperature of the hottest thermal zone, in degrees Celsius."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    values = [_text(path) for path in zones]
    numbers = [int(value) / 1000 for value in values if value and value.lstrip("-").isdigit()]
    return max(numbers, default=None)


def _busy_s() -> float | None:
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError):
        return None
    spent = sum(times) - times.idle - getattr(times, "iowait", 0.0)
    # Linux counts a guest's time as its host's user time already.
    return float(spent - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _output(*command: str) -> str | None:
    """Return the output of a system command; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
