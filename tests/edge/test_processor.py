"""Facts of this processor that decide how integers are computed on it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from edge.process import processor


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", "flags : fpu sse4_2 avx2 fma\n", True),
        ("x86_64", "flags : fpu avx2 avx512f\n", True),
        ("x86_64", "flags : fpu avx2 avx512_vnni\n", False),
        ("AMD64", "flags : fpu avx2 avx_vnni\n", False),
        ("x86_64", "flags : fpu avx2 amx_int8\n", False),
        # An Arm core without dot products multiplies in 16 bits as well, but adds in 32.
        ("aarch64", "Features : fp asimd\n", False),
        ("x86_64", "", False),
    ],
)
def test_only_x86_without_vnni_overflows_in_sums_of_8_bit_products(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, text: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert processor.saturates_int8() is expected
