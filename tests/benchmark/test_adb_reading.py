"""What `--device adb` makes of the lines of adb, of Android and of the tools, without a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.config import DeviceOptions
from benchmark.devices import find_devices, get_device
from benchmark.devices.adb.app import dump, load
from benchmark.devices.adb.elf import elf_abi
from benchmark.devices.adb.facts import DESCRIBE_SCRIPT, AndroidFacts, read_conditions
from benchmark.devices.adb.link import find_adb, list_devices
from benchmark.devices.adb.logs import (
    read_model_log,
    read_operators,
    read_perf_log,
    read_perf_result,
)
from benchmark.devices.adb.tools import find_tools
from edge.errors import ConfigError, MeasurementError

LOG = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [model.tflite]
INFO: Use xnnpack=enabled
INFO: The input model file size (MB): 1.83386
INFO: Initialized session in 4.326ms.
INFO: Running benchmark for at least 1 iterations and at least 0.1 seconds ...
INFO: count=95 first=2100 curr=1010 min=990 max=2100 avg=1050.5 std=30 p5=995 median=1005 p95=1200

INFO: Running benchmark for at least 50 iterations and at least 1 seconds ...
INFO: count=980 first=1001 curr=1015 min=985 max=1.4e+03 avg=1.0204e+03 std=25 median=1012 p95=1100

INFO: Inference timings in us: Init: 4326, First inference: 2100, Inference (avg): 1020.4
INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=4
INFO: Overall peak memory footprint (MB) via periodic monitoring: 10
"""
TABLE = """============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times]
{rows}
Timings (microseconds): count=8 first=1 curr=1 min=1 max=2 avg=1.5 std=0
"""


def _table(*rows: tuple[str, int, float]) -> str:
    lines = (f"\t{name:>24}\t{n:9}\t{ms:10.3f}\t10.0%\t10.0%\t0.0\t{n:9}" for name, n, ms in rows)
    return TABLE.format(rows="\n".join([*lines, ""]))


def test_a_log_of_benchmark_model() -> None:
    log = read_model_log(LOG)
    assert log.warm is not None and log.recorded is not None
    assert (log.warm.count, log.warm.first) == (95, 2100)
    assert (log.recorded.count, log.recorded.median_or_mean, log.recorded.maximum) == (
        980,
        1012,
        1400,
    )
    assert log.recorded.total_s == pytest.approx(980 * 1020.4e-6)
    assert (log.init_ms, log.first_ms) == (4.326, 2.1)
    # Its megabytes are of 2^20 bytes, those of a row of 10^6.
    assert log.peak_mb == pytest.approx(10.48576)
    assert log.delta_mb == pytest.approx(4.194304)


@pytest.mark.parametrize(
    ("line", "count", "median_or_mean"),
    [
        ("count=1 curr=1234", 1, 1234),
        ("count=3 curr=1234(all same)", 3, 1234),
        # Builds before 2023 print no median: their mean stands for it.
        ("count=50 first=10 curr=12 min=9 max=20 avg=11.5 std=2", 50, 11.5),
        ("count=0", 0, 0),
    ],
)
def test_other_lines_of_statistics(line: str, count: int, median_or_mean: float) -> None:
    recorded = read_model_log(f"INFO: {line}\n").recorded
    assert recorded is not None
    assert (recorded.count, recorded.median_or_mean) == (count, median_or_mean)


def test_operators_are_those_of_the_recorded_runs_without_a_delegates_inside() -> None:
    text = (
        "Profiling Info for Benchmark Initialization:\n"
        + _table(("AllocateTensors", 1, 9.0))
        + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        + _table(("Fully Connected (NC, F32) GEMM", 9, 0.5), ("GATHER/0", 2, 0.125))
        + "Subgraph (index: 1, name: other)\n"
        + _table(("GATHER/1", 1, 0.5))
        + "Delegate internal:\n"
        + _table(("DelegateOpInvoke", 9, 0.5))
    )
    found = [(one.type, one.count, one.total_ms) for one in read_operators(text)]
    assert found == [("GATHER", 3, 0.625), ("Fully Connected (NC, F32) GEMM", 9, 0.5)]
    assert read_operators(LOG) == []


def test_the_files_of_onnxruntime_perf_test() -> None:
    log = read_perf_log("Session creation time cost: 0.0351288 s\nFirst inference time cost: 12 ms")
    assert (log.load_ms, log.first_ms) == (pytest.approx(35.1288), 12)
    text = "model,0.00123457,1000000,50,0\nmodel,1.5e-05,3000000,50,1\n\nP50 Latency: 0.1 s\n"
    result = read_perf_result(text)
    assert (result.raw_ns, result.peak_bytes) == ([1234570, 15000], 3000000)


def _elf(path: Path, machine: int) -> Path:
    path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little"))
    return path


def test_a_tool_is_taken_for_the_devices_processor(tmp_path: Path) -> None:
    _elf(tmp_path / "android_arm_benchmark_model", 40)
    wanted = _elf(tmp_path / "android_aarch64_benchmark_model", 183)
    (tmp_path / "libonnxruntime.so").write_bytes(b"")
    found = find_tools(tmp_path, ("arm64-v8a", "armeabi-v7a"))
    assert set(found) == {"litert"}
    # Both run there.
    assert found["litert"].path == wanted
    assert [path.name for path in found["litert"].libraries] == ["libonnxruntime.so"]
    assert elf_abi(wanted) == "arm64-v8a"
    with pytest.raises(
        ConfigError, match="which is x86_64: .*is for arm64-v8a, .*armeabi-v7a; get"
    ):
        find_tools(tmp_path, ("x86_64", "x86"))


def test_a_folder_without_tools_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder: name the one with benchmark_model"):
        find_tools(tmp_path / "nowhere", ("arm64-v8a",))
    with pytest.raises(ConfigError, match="no benchmark_model or onnxruntime_perf_test in"):
        find_tools(tmp_path, ("arm64-v8a",))
    (tmp_path / "benchmark_model").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="is no program of Android or Linux"):
        find_tools(tmp_path, ("arm64-v8a",))


@pytest.mark.parametrize(("run_ms", "calls"), [(10, 1), (5, 2), (4000, 1)])
def test_a_turn_goes_on_until_its_seconds_are_reached(
    monkeypatch: pytest.MonkeyPatch, run_ms: int, calls: int
) -> None:
    """The tool takes a number of runs, which the speed of the runs before tells: 10 ms here."""
    from benchmark.config import Block
    from benchmark.devices.adb.onnxruntime import PerfTimer
    from benchmark.devices.adb.tool_timer import ToolOutput

    asked: list[int] = []

    def times(self: PerfTimer, runs: int) -> tuple[ToolOutput, list[int]]:
        asked.append(runs)
        return ToolOutput("", 0.5), [run_ms * 1_000_000] * runs

    monkeypatch.setattr(PerfTimer, "_times", times)
    timer = object.__new__(PerfTimer)
    timer._run_s = 0.01
    turn = timer.turn(Block(runs=4, min_s=0.2, max_s=1.0))
    assert len(asked) == calls
    assert sum(turn.raw_ns) >= 0.2e9 and turn.count >= 4
    # 0.1 s before it are not recorded, where a run is shorter than that.
    assert turn.count < sum(asked)
    assert turn.processor_s == 0.5 * calls


# --- adb's own lines, by a script in its place --------------------------------------------------


@pytest.fixture
def fake_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An `adb` on PATH that prints a list of devices, and notes what else it is asked."""

    def make(*lines: str) -> Path:
        text = "\n".join(["List of devices attached", *lines, ""])
        (tmp_path / "list").write_text(text)
        program = tmp_path / "bin" / "adb"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = devices ] && cat {tmp_path}/list\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return tmp_path / "asked"

    return make


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("R58M unauthorized usb:1-1", "R58M is unauthorized: unlock its screen and accept"),
        ("R58M offline usb:1-1", "R58M is offline: take its cable out and in again"),
        ("R58M recovery", "R58M is recovery: start Android on it: adb reboot"),
        (
            "R58M no permissions (user in plugdev group; are your udev rules wrong?); see [x]",
            "R58M is not permitted: add your user to the group plugdev",
        ),
    ],
)
def test_a_device_that_cannot_be_used_says_what_to_do(
    fake_adb: Any, line: str, message: str
) -> None:
    fake_adb(line)
    with pytest.raises(ConfigError, match=message):
        get_device("adb", DeviceOptions())
    (found,) = [one for one in find_devices() if one.spec.startswith("adb")]
    assert found.spec == "adb:R58M" and message.partition(": ")[2][:20] in str(found.reason)


def test_lines_of_adb_devices(fake_adb: Any) -> None:
    fake_adb(
        "R58M\tdevice usb:1-1 product:x model:SM_G991B device:o1s transport_id:1",
        "192.168.1.7:5555 device model:Pixel_8",
        "adb-R5CT-a1._adb-tls-connect._tcp offline",
    )
    found = list_devices(find_adb())
    assert [one.serial for one in found] == [
        "R58M",
        "192.168.1.7:5555",
        "adb-R5CT-a1._adb-tls-connect._tcp",
    ]
    assert found[0].properties["model"] == "SM_G991B"
    assert [one.obstacle is None for one in found] == [True, True, False]
    with pytest.raises(ConfigError, match="3 Android devices are attached .*adb:R58M"):
        get_device("adb:", DeviceOptions())


def test_no_device_and_no_adb(
    fake_adb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_adb()
    with pytest.raises(ConfigError, match="no Android device is attached: plug one in and allow"):
        get_device("adb", DeviceOptions())
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="adb is not installed: install Android's platform-tools"):
        get_device("adb", DeviceOptions())
    # An SDK that is not on PATH does as well.
    (tmp_path / "sdk/platform-tools").mkdir(parents=True)
    (tmp_path / "bin/adb").rename(tmp_path / "sdk/platform-tools/adb")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_adb() == tmp_path / "sdk/platform-tools/adb"


@pytest.mark.parametrize("serial", ["x;id", "$(id)", "a b", "-e", "`id`", "x|y", "x'y", "../x"])
def test_a_serial_with_characters_of_a_shell_is_refused_unasked(fake_adb: Any, serial: str) -> None:
    asked = fake_adb("R58M device")
    with pytest.raises(ConfigError, match="is no serial of a device: take one that adb devices"):
        get_device(f"adb:{serial}", DeviceOptions())
    assert not asked.exists()


def test_a_server_that_fails_is_one_line(
    fake_adb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_adb()
    (tmp_path / "bin/adb").write_text("#!/bin/sh\necho '* daemon died' >&2; exit 1\n")
    with pytest.raises(MeasurementError, match="adb failed: . daemon died; restart its server"):
        get_device("adb", DeviceOptions())
    assert os.access(tmp_path / "bin/adb", os.X_OK)


# --- Android's lines ----------------------------------------------------------------------------

PHONE = """
@@ uname
aarch64
5.15.123-android13
Linux
@@ status
Cpus_allowed_list:\t0-7
@@ meminfo
MemTotal:        7811836 kB
@@ cpuinfo
Features\t: fp asimd asimdhp asimddp i8mm bf16
@@ properties
ro.product.manufacturer=Google
ro.product.model=Pixel 7
ro.soc.manufacturer=Google
ro.soc.model=GS201
ro.product.cpu.abi=arm64-v8a
ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi
ro.build.version.release=14
ro.build.version.sdk=34
{more}
@@ taskset
{taskset}
""" + "\n".join(
    f"@@ cpu{core} cpuinfo_max_freq\n{khz}"
    for core, khz in enumerate([1803000] * 4 + [2348000] * 2 + [2850000] * 2)
)


def test_a_phone_and_its_fast_cores() -> None:
    facts = AndroidFacts.parse(PHONE.format(more="", taskset="/system/bin/taskset"))
    device = facts.info("R58M", {})
    assert (device.kind, device.model, device.soc) == ("real", "Google Pixel 7", "Google GS201")
    assert (device.abi, device.cores, device.ram_mb) == ("arm64-v8a", 8, 7999)
    assert device.os == "Android 14 (API 34), kernel 5.15.123-android13"
    assert device.cpu_features == ("asimd", "asimdhp", "asimddp", "i8mm", "bf16")
    assert facts.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
    cores = [facts.big_cores(threads) for threads in (1, 2, 3, 4, 5, 8)]
    assert cores == [(6, 7), (6, 7), (4, 5, 6, 7), (4, 5, 6, 7), None, None]
    without = AndroidFacts.parse(PHONE.format(more="", taskset=""))
    assert without.big_cores(1) is None


@pytest.mark.parametrize("more", ["ro.boot.qemu=1", "ro.kernel.qemu=1", "ro.hardware=ranchu"])
def test_an_emulator_is_no_real_device(more: str) -> None:
    facts = AndroidFacts.parse(PHONE.format(more=more, taskset=""))
    assert facts.info("emulator-5554", {}).kind == "emulated"


def test_a_name_cannot_steer_a_terminal() -> None:
    facts = AndroidFacts.parse("@@ properties\nro.product.model=X\x1b[2J1\nro.soc.model=\x07S\n")
    assert facts.title == "X[2J1"
    assert facts.info("R58M", {}).soc == "S"


def test_a_board_without_properties_has_the_abi_of_its_kernel() -> None:
    facts = AndroidFacts.parse("@@ uname\narmv7l\n6.1.0\nLinux\n")
    assert facts.abis == ("armeabi-v7a",)
    assert facts.title is None
    # Every property is asked for by its name.
    assert 'echo "ro.soc.model=$(getprop ro.soc.model)"' in DESCRIBE_SCRIPT


@pytest.mark.parametrize(
    ("number", "word"), [("0", "none"), ("3", "severe"), ("6", "shutdown"), ("9", "9")]
)
def test_heat_by_name(number: str, word: str) -> None:
    text = f"@@ thermal\nIsStatusOverride: false\nThermal Status: {number}\n"
    assert read_conditions(text).thermal_status == word


def test_a_battery_that_is_not_charged_and_sensors_of_linux() -> None:
    found = read_conditions(
        "@@ battery\n  level: 30\n  scale: 50\n  status: 3\n"
        "@@ thermal_zone0 temp\n45500\n@@ thermal_zone1 temp\n-274000\n"
        "@@ thermal_zone2 temp\n250000\n"
    )
    assert (found.battery_percent, found.charging) == (60, False)
    # Sensors that show the impossible are broken.
    assert found.temperature_c == 45.5
    nothing = read_conditions("")
    assert (nothing.battery_percent, nothing.charging, nothing.thermal_status) == (None,) * 3
    assert nothing.temperature_c is None


# --- messages to the app ------------------------------------------------------------------------


def test_messages_to_the_app_are_json() -> None:
    arrays = {"0/input_ids": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.asarray([1.5])}
    message, back = load(dump({"do": "load", "text": "é"}, arrays))
    assert message == {"do": "load", "text": "é"}
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].dtype == value.dtype


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"message": {}, "arrays": {"a": {"dtype": "O", "shape": [1], "data": ""}}}',
        '{"message": {}, "arrays": {"a": {"dtype": "<f4", "shape": [2], "data": "AAAA"}}}',
    ],
)
def test_what_is_no_reply_is_one_line(text: str) -> None:
    with pytest.raises(MeasurementError, match="the app's reply cannot be read .*: install"):
        load(text)
