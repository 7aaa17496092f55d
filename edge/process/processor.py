"""The processor of this machine: name, cores and instruction set features."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Features with instructions for products of 8-bit integers, by their Linux names.
INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
# Features by which engines choose their kernels.
FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_MAC_FEATURES = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
}


def name() -> str | None:
    """Return the name of the processor, or None if unknown."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    board = Path("/sys/firmware/devicetree/base/model")
    for key in ("model name", "hardware", "model"):
        value = cpuinfo(key)
        if value:
            return value
    return board.read_text(errors="replace").rstrip("\0") if board.is_file() else None


def usable_cores() -> int:
    """Return the number of logical cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def features() -> tuple[str, ...]:
    """Return the processor's features that are in FEATURES."""
    if sys.platform == "darwin":
        return tuple(name for key, name in _MAC_FEATURES.items() if _sysctl(key) == "1")
    available = (cpuinfo("flags") or cpuinfo("features") or "").split()
    return tuple(feature for feature in FEATURES if feature in available)


def int8_features() -> tuple[str, ...]:
    """Return the processor's features with instructions for products of 8-bit integers."""
    available = features()
    return tuple(feature for feature in INT8_FEATURES if feature in available)


def saturates_int8() -> bool:
    """Return True on x86 known to lack VNNI, where sums of 8-bit products can overflow.

    Its only instruction for them (pmaddubsw) adds two products in 16 bits.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and bool(features()) and not int8_features()


def cpuinfo(key: str) -> str | None:
    """Return the first value of a key in /proc/cpuinfo, ignoring case, or None."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for k, _, value in pairs if k.strip().lower() == key), None)


def _sysctl(key: str) -> str | None:
    try:
        process = subprocess.run(
            ["sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip() or None
