"""The machine's description: what is there is read, what is missing is None."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from benchmark.measure import environment
from benchmark.schema import Conditions, DeviceInfo
from benchmark.worker import memory
from edge.process import processor


def test_this_machine_is_described() -> None:
    found = environment.describe()
    assert isinstance(found, DeviceInfo)
    assert (found.driver, found.abi) == ("local", platform.machine())
    assert found.cores is not None and found.cores <= (os.cpu_count() or 1)
    assert found.versions["python"] == platform.python_version()
    assert {"torch", "onnxruntime", "numpy"} <= set(found.versions)


def test_nothing_fails_when_no_file_of_the_system_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "_text", lambda path: None)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "nowhere")
    monkeypatch.setattr(environment, "_CPU", tmp_path / "nowhere")
    found = environment.describe.__wrapped__()
    assert (found.model, found.cpu_features, found.kind) == (None, (), "real")
    assert environment.conditions().governor is None
    assert environment.conditions().frequency_mhz is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own files")
def test_features_and_emulation_are_read_from_cpuinfo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: QEMU Virtual CPU\nflags\t\t: fpu avx2 sse4_2 nopl\n")
    monkeypatch.setattr(processor, "CPUINFO", file)
    assert processor.features() == ("sse4_2", "avx2")
    assert processor.name() == "QEMU Virtual CPU"
    assert environment.describe.__wrapped__().kind == "emulated"


def test_frequencies_are_megahertz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for core, kilohertz in enumerate((1_800_000, 2_400_000)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("schedutil\n")
    monkeypatch.setattr(environment, "_CPU", tmp_path)
    found = environment.conditions()
    assert isinstance(found, Conditions)
    assert found.frequency_mhz == (1800.0, 2400.0)
    assert found.governor == "schedutil"


def test_a_folder_without_git_has_no_commit(tmp_path: Path) -> None:
    assert environment.commit(tmp_path) is None


def test_peak_memory_is_at_least_what_is_held_now() -> None:
    now = memory.resident_bytes()
    assert memory.peak_resident_bytes() >= now > 10_000_000
