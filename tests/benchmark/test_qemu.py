"""Arm's kernels under QEMU: right answers and instruction counts, never a valid latency."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import benchmark
from benchmark.config import DeviceOptions
from benchmark.devices import Job, get_device
from benchmark.devices.remote.qemu import INFO, PROGRAM, QemuDevice, default_sysroot
from edge.errors import ConfigError, MeasurementError
from edge.storage import cache_folder

SYSROOT = default_sysroot()
WHEELS = cache_folder() / "wheels"
OPTIONS = DeviceOptions(timeout_s=120)
needs_sysroot = pytest.mark.skipif(
    not (SYSROOT / INFO).exists() or not list(WHEELS.glob("onnxruntime-*-aarch64-*")),
    reason="needs an Arm system: run .venv/bin/python scripts/qemu_sysroot.py --counting",
)


def _feeds(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [{name: draw.integers(0, 2, (1, 8), np.int32) for name in names} for _ in range(count)]


@pytest.fixture(scope="module")
def emulated(bundle: Path) -> Iterator[benchmark.BenchmarkResult]:
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,),
        format=("onnx",),
        precision=("fp32",),
        device="qemu:cortex-a76",
        options=OPTIONS,
        protocol=benchmark.Protocol(min_runs=2, max_s=60, rounds=2),
    )
    yield benchmark.benchmark(config)


@needs_sysroot
def test_an_artifact_is_checked_on_an_emulated_processor(
    emulated: benchmark.BenchmarkResult,
) -> None:
    (row,) = emulated.rows
    assert row.check is not None and row.check.status == "passed"
    assert row.check.max_relative_error is not None and row.check.max_relative_error < 1e-5
    device = row.device
    assert (device.driver, device.address, device.kind) == ("qemu", "cortex-a76", "emulated")
    assert device.abi == "aarch64"
    assert "asimddp" in device.cpu_features
    assert device.versions["onnxruntime"] == row.runtime.version


@needs_sysroot
def test_its_latency_is_never_valid(emulated: benchmark.BenchmarkResult) -> None:
    (row,) = emulated.rows
    assert row.validity.status == "invalid"
    assert "emulated" in row.validity.reasons[0]
    assert row.memory is None and row.stages is None


@needs_sysroot
def test_outputs_are_those_of_this_machine(bundle: Path) -> None:
    feeds = _feeds(3)
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, feeds)
    found = []
    for spec in ("qemu:cortex-a53", "local"):
        with get_device(spec, OPTIONS) as device, device.open(job) as timer:
            timer.load()
            answers = timer.answers(feeds)
            assert answers is not None
            found.append([one["logits"] for one in answers])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


@needs_sysroot
def test_instructions_of_an_inference_are_counted(bundle: Path) -> None:
    if not json.loads((SYSROOT / INFO).read_text())["counting"]:
        pytest.skip("needs a QEMU that counts: scripts/qemu_sysroot.py --counting")
    counts: dict[int, list[int | None]] = {}
    for length in (8, 32):
        names = ("input_ids", "attention_mask", "token_type_ids")
        feed = dict.fromkeys(names, np.ones((1, length), np.int32))
        job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, [feed])
        with get_device("qemu:cortex-a76", OPTIONS) as device, device.open(job) as timer:
            timer.load()
            counts[length] = [timer.instructions(), timer.instructions()]
    (one, again), (longer, _) = counts[8], counts[32]
    assert one is not None and again is not None and longer is not None
    # A tiny model: what Python takes for a call is most of it, and its memory is never the same.
    assert one == pytest.approx(again, rel=0.2)
    # 24 tokens more: each at least a row of 32 x 32 products, four at a time.
    assert 24 * 32 * 32 / 4 < longer - one < 10_000_000


@needs_sysroot
def test_counts_are_left_out_where_threads_wait_for_one_another(bundle: Path) -> None:
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 2, _feeds(1))
    with get_device("qemu:cortex-a76", OPTIONS) as device, device.open(job) as timer:
        assert timer.instructions() is None


@needs_sysroot
def test_processors_that_qemu_does_not_know_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown processor 'cortex-a67': did you mean"):
        get_device("qemu:cortex-a67", OPTIONS)
    with pytest.raises(ConfigError, match="name a processor, such as --device qemu:cortex-a76"):
        get_device("qemu", OPTIONS)


@needs_sysroot
def test_nothing_is_left_when_it_is_closed() -> None:
    device = get_device("qemu:cortex-a76", OPTIONS)
    assert isinstance(device, QemuDevice)
    folder = device._folder
    assert (folder / "code.zip").exists()
    device.close()
    device.close()
    assert not folder.exists()


def test_a_missing_sysroot_says_how_to_make_one(tmp_path: Path) -> None:
    options = DeviceOptions(sysroot=tmp_path)
    with pytest.raises(ConfigError, match=r"no Arm system in .*: run .*qemu_sysroot\.py") as caught:
        get_device("qemu:cortex-a76", options)
    assert "\n" not in str(caught.value)
    (found,) = QemuDevice.discover(options)
    assert found.formats == () and found.reason is not None
    assert "scripts/qemu_sysroot.py" in found.reason


def test_an_emulator_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / INFO).write_text('{"qemu": "0", "counting": false}')
    program = tmp_path / PROGRAM
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(MeasurementError, match=r"does not work \(no such library\)"):
        get_device("qemu:cortex-a76", DeviceOptions(sysroot=tmp_path))
    assert [one.spec for one in QemuDevice.discover(DeviceOptions(sysroot=tmp_path))] == [
        "qemu:cortex-a53",
        "qemu:cortex-a55",
        "qemu:cortex-a76",
    ]
