"""`--device adb` on the real adb server and the real adbd, in namespaces of their conftest.

What stands for a phone is said in `adbd.py` (getprop, dumpsys, pm, am: scripts of a few lines) and
in `stand_ins.py` (benchmark_model, onnxruntime_perf_test, the app: they really run the model).
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmark
from benchmark.config import Block, DeviceOptions
from benchmark.devices import Job, ModelRefused, get_device
from benchmark.devices.adb.device import AdbDevice
from benchmark.devices.adb.link import AdbLink
from benchmark.schema import Row
from edge.errors import ConfigError, MeasurementError
from tests.benchmark import adbd, conftest, stand_ins, tiny_tflite

LENGTHS = (16, 32)
ROWS = "text\tlabel\nok\tyes\ndull\tno\na fine day\tmaybe\ngood and bad\tyes\n"
PROTOCOL = benchmark.Protocol(
    min_runs=6, min_s=0, max_s=30, rounds=3, warmup_runs=2, warmup_s=0, warmup_max_s=1
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("adbd is fetched for Linux on x86-64")
    if (reason := adbd.obstacle()) is not None:
        pytest.skip(reason)
    with adbd.Lab(tmp_path_factory.mktemp("lab") / "work") as lab:
        yield lab


@pytest.fixture(scope="module")
def phone(lab: Any) -> Any:
    """A device with a slow core and a fast one, made up."""
    return lab.device(clocks_khz=(1_800_000, 2_800_000))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = stand_ins.make_tools(tmp_path_factory.mktemp("made") / "tools")
    return folder


@pytest.fixture
def on_path(lab: Any, phone: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real adb where the program looks for it."""
    monkeypatch.setenv("PATH", f"{lab.bin}:/usr/bin:/bin")
    lab.attach(phone)
    return phone


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX and TFLite of the same numbers."""
    root = tmp_path_factory.mktemp("made")
    vocabulary = len(conftest.WORDS)
    tiny_tflite.write_tflite(root / "small.tflite", lengths=LENGTHS, vocabulary=vocabulary)
    cases = tiny_tflite.golden_cases(vocabulary)
    files = {("tflite", "fp32"): root / "small.tflite"}
    bundle: Path = conftest.write_bundle(root / "student", files, cases=cases, lengths=LENGTHS)
    return bundle


def _config(folder: Path, tools: Path | None, **values: Any) -> benchmark.BenchmarkConfig:
    options = DeviceOptions(tools=tools, timeout_s=60)
    chosen = {"device": "adb", "options": options, "protocol": PROTOCOL, **values}
    return benchmark.BenchmarkConfig(bundles=(folder,), **chosen)


def _left(phone: Any) -> list[str]:
    """What lies on the device where programs may write."""
    return sorted(phone.shell("cd /data/local/tmp && ls; find /sdcard -type f").split())


# --- the whole way, with stand-ins for the tools ------------------------------------------------


@pytest.fixture(scope="module")
def timed(
    lab: Any, phone: Any, tools: Path, student: Path, bundle: Path, tmp_path_factory: Any
) -> dict[str, Row]:
    """Both formats, timed once for several tests, with a profile and the metric."""
    labels = tmp_path_factory.mktemp("data") / "rows.tsv"
    labels.write_text(ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{lab.bin}:/usr/bin:/bin")
        rows = {}
        for folder, form in ((student, "tflite"), (bundle, "onnx")):
            config = _config(
                folder, tools, format=(form,), precision=("fp32",), profile=True, eval=labels
            )
            rows[form] = benchmark.benchmark(config).rows[0]
    return rows


def test_a_row_says_what_the_device_is(timed: dict[str, Row], phone: Any) -> None:
    device = timed["tflite"].device
    assert (device.driver, device.address, device.kind) == ("adb", phone.serial, "real")
    assert (device.model, device.soc, device.abi) == ("Acme Slate 7", "Acme AC9000", "x86_64")
    assert device.os is not None and device.os.startswith("Android 14 (API 34), kernel ")
    assert device.ram_mb is not None and device.ram_mb > 500
    before = timed["tflite"].conditions.before
    assert before is not None
    assert (before.thermal_status, before.battery_percent, before.charging) == ("light", 85, True)
    # Of the sensors' present values, not of those that the service remembers.
    assert before.temperature_c == 43.25
    assert before.frequency_mhz == (900, 1400)
    assert before.governor == "schedutil"
    assert before.busy_s is not None and before.busy_s > 0
    assert timed["tflite"].runtime.affinity == (1,)


def test_a_tool_that_prints_statistics_gives_one_value_a_turn(timed: dict[str, Row]) -> None:
    row = timed["tflite"]
    latency = row.latency_ms
    assert latency is not None
    assert row.runtime.name == "litert"
    assert row.runtime.version is not None and row.runtime.version.startswith("benchmark_model ")
    assert latency.recorded == "turns"
    assert latency.p90 is None and latency.p50 > 0
    assert len(latency.raw_ns) == 3 and latency.n >= 6
    assert latency.load is not None and latency.first is not None
    assert row.memory is not None and row.memory.peak_rss_mb is not None
    assert {"GATHER", "SUM"} <= {one.type for one in row.operators}
    assert sum(one.share for one in row.operators) == pytest.approx(1)


def test_a_tool_that_writes_every_run_gives_every_run(timed: dict[str, Row]) -> None:
    row = timed["onnx"]
    latency = row.latency_ms
    assert latency is not None
    assert latency.recorded == "runs"
    assert latency.n == len(latency.raw_ns) == 6
    assert latency.p90 is not None and latency.p90 >= latency.p50 > 0
    assert row.memory is not None and row.memory.peak_rss_mb is not None
    assert {"Gather", "MatMul"} <= {one.type for one in row.operators}
    assert row.check is None
    words = "its answers on this device were not compared with the checkpoint's"
    assert words in row.validity.reasons


def test_answers_of_benchmark_model_are_those_of_the_checkpoint_and_of_this_machine(
    timed: dict[str, Row], student: Path, tmp_path: Path
) -> None:
    row = timed["tflite"]
    assert row.check is not None
    assert (row.check.status, row.check.samples) == ("passed", 6)
    labels = tmp_path / "rows.tsv"
    labels.write_text(ROWS)
    config = _config(student, None, device="local", options=DeviceOptions(), eval=labels)
    local = benchmark.benchmark(config).rows[0]
    assert row.accuracy is not None and local.accuracy is not None
    assert row.accuracy.on_device
    assert row.accuracy == local.accuracy


def test_nothing_stays_on_the_device(timed: dict[str, Row], phone: Any) -> None:
    assert _left(phone) == []


def test_a_model_is_pushed_once_however_often_it_is_timed(
    on_path: Any, tools: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []
    push = AdbLink.push

    def counted(self: AdbLink, sources: Any, target: str) -> None:
        pushed.extend(source.name for source in sources)
        push(self, sources, target)

    monkeypatch.setattr(AdbLink, "push", counted)
    protocol = PROTOCOL.model_copy(update={"rounds": 1, "min_runs": 1})
    config = _config(student, tools, protocol=protocol, threads=(1, 2))
    rows = benchmark.benchmark(config).rows
    # Both cores are needed for two threads.
    assert [row.runtime.affinity for row in rows] == [(1,), None]
    assert pushed.count("model-fp32.tflite") == 1
    assert pushed.count("benchmark_model") == 1


def _job(folder: Path, label: str = "tflite-fp32") -> Job:
    feed = {
        name: np.ones((1, 16), np.int32)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    return Job(label, "litert", folder / "model-fp32.tflite", 1, [feed])


def _device(tools: Path | None, timeout_s: float = 60) -> AdbDevice:
    device = get_device("adb", DeviceOptions(tools=tools, timeout_s=timeout_s))
    assert isinstance(device, AdbDevice)
    return device


def test_a_model_that_a_tool_cannot_load_is_refused_with_its_reason(
    on_path: Any, tools: Path, student: Path
) -> None:
    job = _job(student)
    with _device(tools) as device, device.open(job) as timer:
        on_path.shell("rm /data/local/tmp/edge-*/*.tflite")
        with pytest.raises(ModelRefused, match="tflite-fp32: benchmark_model failed on 127"):
            timer.load()


def test_another_build_of_a_tool_is_refused_or_shows_no_outputs(
    on_path: Any, student: Path, tmp_path: Path
) -> None:
    """LiteRT has a tool of the same name that fills inputs at random; old ones show no outputs."""
    other = stand_ins.make_tools(tmp_path / "other", ignored=("input_layer_value_files",))
    with _device(other) as device, device.open(_job(student)) as timer:
        with pytest.raises(ModelRefused, match="does not know --input_layer_value_files: get the"):
            timer.load()
    old = stand_ins.make_tools(tmp_path / "old", ignored=("output_filepath",))
    with _device(old) as device, device.open(_job(student)) as timer:
        timer.load()
        assert timer.answers(_job(student).feeds) is None


def test_an_interrupted_turn_leaves_no_program_and_no_file(
    on_path: Any, tools: Path, student: Path
) -> None:
    """As Ctrl-C does: the wait for adb ends in the middle of a turn of a minute."""
    communicate = subprocess.Popen.communicate
    patch = pytest.MonkeyPatch()
    with pytest.raises(KeyboardInterrupt):
        with _device(tools) as device, device.open(_job(student)) as timer:
            timer.load()

            def interrupted(self: Any, *arguments: Any, **values: Any) -> Any:
                if values.get("timeout") is not None:
                    patch.undo()
                    with contextlib.suppress(Exception):
                        communicate(self, timeout=3)
                    raise KeyboardInterrupt
                return communicate(self, *arguments, **values)

            patch.setattr(subprocess.Popen, "communicate", interrupted)
            timer.turn(Block(runs=1, min_s=60, max_s=60))
    assert _left(on_path) == []
    assert "benchmark_model" not in on_path.shell("ps ax")


# --- what goes wrong ----------------------------------------------------------------------------


def _later(action: Callable[[], object], delay_s: float) -> threading.Thread:
    def run() -> None:
        time.sleep(delay_s)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["server", "cable"])
def test_a_device_that_goes_away_in_a_turn_is_a_failure_of_one_line(
    on_path: Any, lab: Any, tools: Path, student: Path, how: str
) -> None:
    """Its server is killed, or its connection cut, in the middle of a turn of a minute."""
    with _device(tools) as device, device.open(_job(student)) as timer:
        timer.load()
        actions = {
            "server": lambda: lab.adb("kill-server"),
            "cable": lambda: lab.detach(on_path.serial),
        }
        thread = _later(actions[how], 3)
        start = time.monotonic()
        with pytest.raises(MeasurementError, match=r"is gone \(.*\): attach it again") as caught:
            timer.turn(Block(runs=1, min_s=50, max_s=60))
        thread.join()
        assert "\n" not in str(caught.value)
        assert time.monotonic() - start < 45
        lab.attach(on_path)
    assert _left(on_path) == []


def test_rows_so_far_are_kept_when_the_device_goes_away_and_the_rest_comes_later(
    on_path: Any,
    lab: Any,
    tools: Path,
    student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from benchmark.devices.adb.litert import ModelTimer

    turn, blocks = ModelTimer.turn, []

    def unplugged(self: ModelTimer, block: Block) -> Any:
        blocks.append(block)
        if len(blocks) == 3:
            lab.detach(on_path.serial)
        return turn(self, block)

    monkeypatch.setattr(ModelTimer, "turn", unplugged)
    journal = tmp_path / "journal.jsonl"
    result = benchmark.benchmark(_config(student, tools), journal=journal)
    assert result.failure is not None and "is gone" in result.failure
    (row,) = result.rows
    assert row.latency_ms is not None and len(row.latency_ms.blocks) == 2
    assert any("ended early" in reason for reason in row.validity.reasons)
    assert "cannot be reached: /data/local/tmp/edge-" in capsys.readouterr().err

    lab.attach(on_path)
    on_path.shell("rm -rf /data/local/tmp/edge-*")
    (row,) = benchmark.benchmark(_config(student, tools), journal=journal).rows
    assert row.latency_ms is not None and len(row.latency_ms.blocks) == 3
    assert len(blocks) == 4
    assert row.protocol.interruptions == 1
    assert not journal.exists()


def test_a_device_that_freezes_is_given_up_after_the_timeout(
    lab: Any, on_path: Any, tools: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lab.device()
    address = f"adb:{other.serial}"
    device = get_device(address, DeviceOptions(tools=tools, timeout_s=20))
    assert isinstance(device, AdbDevice)
    timer = device.open(_job(student))
    device.link.timeout_s = 2
    other.stop()
    with pytest.raises(MeasurementError, match=r"did not answer within 2 s: wake it up"):
        timer.load()
    timer.close()
    device.close()
    # To adb it is offline once it is asked anew.
    lab.detach(other.serial)
    lab.adb("connect", other.serial, check=False)
    with pytest.raises(ConfigError, match=r"is (offline|connecting): .*cable out and in again"):
        get_device(address, DeviceOptions(tools=tools))
    other.kill()
    lab.detach(other.serial)


def test_one_of_several_devices_must_be_named(on_path: Any, lab: Any, tools: Path) -> None:
    other = lab.device(properties={"ro.product.cpu.abi": "arm64-v8a"})
    with pytest.raises(ConfigError, match=r"2 Android devices are attached \(.*\): name one, as"):
        get_device("adb:", DeviceOptions(tools=tools))
    with pytest.raises(ConfigError, match="no Android device R58 is attached: choose from 127"):
        get_device("adb:R58", DeviceOptions(tools=tools))
    with pytest.raises(
        ConfigError, match="which is arm64-v8a: benchmark_model is for x86_64, .*get the builds for"
    ):
        get_device(f"adb:{other.serial}", DeviceOptions(tools=tools))
    found = {one.spec: one for one in AdbDevice.discover(DeviceOptions(tools=tools))}
    assert found[f"adb:{on_path.serial}"].formats == ("onnx", "tflite")
    assert found[f"adb:{on_path.serial}"].title == "Acme Slate 7"
    refused = found[f"adb:{other.serial}"]
    assert refused.formats == () and "get the builds for arm64-v8a" in str(refused.reason)
    other.kill()
    lab.detach(other.serial)


def test_a_full_device_is_found_out_before_anything_is_pushed(
    lab: Any, on_path: Any, tools: Path, student: Path
) -> None:
    other = lab.device(size_mb=10)
    with get_device(f"adb:{other.serial}", DeviceOptions(tools=tools)) as device:
        with pytest.raises(
            MeasurementError, match=r"not enough space on .*: 10\.\d MB free in /data/local/tmp"
        ):
            device.open(_job(student))
    assert _left(other) == []
    other.kill()
    lab.detach(other.serial)


def test_without_tools_and_without_the_app_there_is_nothing_to_do(on_path: Any) -> None:
    with pytest.raises(ConfigError, match="nothing on .* runs models: name a folder that holds"):
        _device(None)


# --- the app, by a stand-in ---------------------------------------------------------------------


@pytest.fixture
def with_app(on_path: Any, tmp_path: Path) -> Iterator[Any]:
    """A device whose `pm`, `am` and `pidof` say that the app is there."""
    shims = stand_ins.app_shims(tmp_path / "spool", tmp_path / "app.py")
    for name, text in shims.items():
        on_path.shim(name, text)
    (on_path.home / "dumpsys-package").write_text(
        "    versionName=0.1.0+onnxruntime-1.23.0+litert-2.1.0\n"
    )
    yield on_path
    on_path.shell("am force-stop org.edgeencoders.app")
    on_path.shim("pm", "exit 1\n")


def test_the_apps_contract_with_a_stand_in_for_the_app(
    with_app: Any, student: Path, bundle: Path
) -> None:
    """Requests and replies of docs/android.md; no app was run."""
    versions = {"tflite": "2.1.0", "onnx": "1.23.0"}
    for folder, form in ((student, "tflite"), (bundle, "onnx")):
        config = _config(folder, None, format=(form,), precision=("fp32",))
        (row,) = benchmark.benchmark(config).rows
        assert row.runtime.version == versions[form]
        assert row.latency_ms is not None and row.latency_ms.recorded == "runs"
        assert row.latency_ms.p90 is not None and row.latency_ms.n >= 6
        assert row.check is not None and row.check.status == "passed"
        assert row.stages is not None and row.stages.e2e.n > 0
        assert row.runtime.affinity is None
    assert _left(with_app) == []
    assert with_app.shell("pidof org.edgeencoders.app").strip() == ""


def test_an_app_that_ends_or_does_not_start_is_a_failure_of_one_line(
    with_app: Any, student: Path, tmp_path: Path
) -> None:
    job = _job(student)
    crashing = tmp_path / "model.crash"
    crashing.write_bytes(job.path.read_bytes())
    with _device(None) as device:
        with pytest.raises(MeasurementError, match="the app ended on .* adb logcat says why"):
            device.open(Job("x", "litert", crashing, 1, job.feeds)).load()
        with_app.shim("am", 'echo "Error type 3"; echo "Error: Activity class does not exist."\n')
        with pytest.raises(
            MeasurementError, match="did not start on .*: Error: Activity class does not exist"
        ):
            device.open(job).load()
        with_app.shim("am", "echo Status: ok\n")
        with_app.shim("pidof", "echo 1\n")
        device.link.timeout_s = 3
        with pytest.raises(MeasurementError, match="did not answer 'load' within 3 s: unlock"):
            device.open(job).load()
