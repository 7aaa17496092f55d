"""The process of a cell: what it answers, and that it never stays behind."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

from benchmark.config import Protocol
from benchmark.devices import DEVICES, Device, Job, TextInputs, get_device
from benchmark.devices.facts import Facts
from benchmark.devices.link import Link
from edge.engines import ENGINES, get_engine
from edge.errors import ConfigError, MeasurementError
from edge.process import wire
from tests.benchmark.tiny_tflite import write_tflite

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("input_ids", "attention_mask", "token_type_ids")
FEEDS = [{name: np.full((1, length), 1, np.int32) for name in NAMES} for length in (8, 8, 5)]
IDS = wire.joined(FEEDS)
PROTOCOL = Protocol(
    min_runs=6, min_s=0, max_s=60, rounds=2, warmup_runs=4, warmup_s=0, warmup_max_s=60
)


def _python(script: str, label: str = "onnx-int8") -> Link:
    return Link([sys.executable, "-c", script], label=label, env=dict(os.environ), cwd=ROOT)


@pytest.fixture
def worker() -> Iterator[Link]:
    argv = [sys.executable, "-m", "benchmark.worker.worker"]
    with Link(argv, label="onnx-int8", env=dict(os.environ), cwd=ROOT) as link:
        yield link


def _model(bundle: Path) -> Path:
    return bundle / "model-fp32.onnx"


def test_messages_survive_the_wire_without_pickle() -> None:
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.asarray([1.5])}
    data = wire.pack({"do": "load", "text": "é\n"}, arrays)
    message, back = wire.unpack(io.BytesIO(data).read)
    assert message == {"do": "load", "text": "é\n"}
    assert list(back) == ["a", "b"]
    np.testing.assert_array_equal(back["a"], arrays["a"])
    assert wire.unpack(io.BytesIO(wire.pack({})).read) == ({}, {})
    with pytest.raises(ValueError, match="pickle"):
        wire.unpack(io.BytesIO(wire.pack({}, {"a": np.asarray([{}], object)})).read)


def test_a_model_is_loaded_warmed_and_timed(bundle: Path) -> None:
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), threads=1, feeds=FEEDS)
    with get_device("local").open(job) as timer:
        loaded = timer.load()
        assert loaded.load_ms > 0 and loaded.first_ms > 0
        if Path("/proc/self/maps").is_file():
            # ONNX Runtime's library, and neither Python's nor numpy's.
            library = next(Path(onnxruntime.__file__).parent.glob("capi/*pybind11_state*.so"))
            assert loaded.library_bytes is not None
            assert library.stat().st_size <= loaded.library_bytes < 2 * library.stat().st_size
        assert timer.warm(PROTOCOL).runs == 4
        turn = timer.turn(PROTOCOL.turn)
        # min_runs / rounds recorded runs; the unrecorded one is in the duration only.
        assert len(turn.raw_ns) == 3
        assert all(isinstance(value, int) and value > 0 for value in turn.raw_ns)
        assert turn.duration_s * 1e9 > sum(turn.raw_ns)
        memory = timer.memory()
        assert memory is not None and memory.peak_rss_mb is not None
        assert memory.delta_mb is not None and memory.peak_rss_mb > memory.delta_mb > 0


@pytest.mark.skipif(sys.platform != "linux", reason="cores cannot be chosen here")
def test_a_model_runs_on_the_fastest_cores(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(Facts, "fast_cores", lambda facts, threads: (first,))
    device = get_device("local")
    assert device.affinity(1) == (first,)
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), threads=1, feeds=FEEDS)
    with device.open(job) as timer:
        timer.load()
        assert psutil.Process(timer._link.pid).cpu_affinity() == [first]  # type: ignore[attr-defined]


def test_a_turn_ends_at_its_limit_with_one_run_at_least(bundle: Path) -> None:
    hurried = PROTOCOL.model_copy(update={"min_runs": 1000, "max_s": 1e-6})
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), threads=1, feeds=FEEDS)
    with get_device("local").open(job) as timer:
        timer.load()
        assert len(timer.turn(hurried.turn).raw_ns) == 1


def test_answers_are_the_engines_own_for_inputs_of_any_length(bundle: Path) -> None:
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), threads=1, feeds=FEEDS)
    random = np.random.default_rng(0)
    feeds = [
        {name: random.integers(0, 2, (1, length)).astype(np.int32) for name in NAMES}
        for length in (3, 9, 3)
    ] * 30
    with (
        get_device("local").open(job) as timer,
        get_engine("onnxruntime").open(_model(bundle)) as session,
    ):
        timer.load()
        answers = timer.answers(feeds)
        assert answers is not None
        found = list(answers)
        assert len(found) == len(feeds)
        for feed, answer in zip(feeds, found, strict=True):
            np.testing.assert_array_equal(answer["logits"], session.run(feed)["logits"])


def test_texts_are_timed_from_end_to_end(bundle: Path) -> None:
    text_inputs = TextInputs(
        tokenizer=bundle / "tokenizer.json",
        texts=("a fine day", "an even longer text here."),
        pairs=None,
        lengths=(8, 32),
        dynamic=False,
        pad_id=0,
        names=NAMES,
    )
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), 1, FEEDS, text_inputs)
    with get_device("local").open(job) as timer:
        timer.load()
        times = timer.stages()
    assert times is not None and len(times.e2e_ns) == 2
    for tokenize, infer, both in zip(times.tokenize_ns, times.infer_ns, times.e2e_ns, strict=True):
        assert tokenize > 0 and infer > 0 and both == tokenize + infer


def test_operators_are_those_of_the_graph(bundle: Path) -> None:
    job = Job("onnx-fp32", "onnxruntime", _model(bundle), threads=1, feeds=FEEDS)
    with get_device("local").open(job) as timer:
        timer.load()
        found = timer.profile()
    assert found is not None
    counts = {one.type: one.count for one in found}
    assert counts["Gather"] == 2 and counts["ReduceSum"] == 1
    assert sum(one.share for one in found) == pytest.approx(1)
    assert list(found) == sorted(found, key=lambda one: -one.total_ms)


def test_an_engine_that_refuses_is_one_line(worker: Link, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    request = {"do": "load", "engine": "onnxruntime", "path": str(broken), "threads": 1}
    with pytest.raises(MeasurementError, match=r"^onnx-int8: ONNX Runtime cannot load") as caught:
        worker.request(request, IDS, timeout_s=60)
    assert "\n" not in str(caught.value)


def test_running_before_loading_is_reported(worker: Link) -> None:
    request = {"do": "turn", "runs": 1, "min_s": 0, "max_s": 1}
    with pytest.raises(MeasurementError, match="onnx-int8: unexpected"):
        worker.request(request, timeout_s=60)


def test_prints_of_a_library_do_not_disturb_the_replies(worker: Link, bundle: Path) -> None:
    # The reply is read from a stream of its own: what goes to fd 1 meanwhile is stderr's.
    request = {
        "do": "load",
        "engine": "onnxruntime",
        "path": str(_model(bundle)),
        "threads": 1,
    }
    worker.request(request, IDS, timeout_s=60)
    fds = Path(f"/proc/{worker.pid}/fd")
    if not fds.is_dir():
        pytest.skip("no /proc here to look at the worker's streams")
    assert (fds / "1").readlink() == (fds / "2").readlink()
    assert (fds / "0").readlink() == Path("/dev/null")


def test_a_worker_that_dies_is_reported_with_its_last_words() -> None:
    script = "import sys; print('first\\nno such kernel\\n', file=sys.stderr); sys.exit(3)"
    with _python(script) as link, pytest.raises(MeasurementError) as caught:
        link.request({"do": "load"}, timeout_s=60)
    expected = "onnx-int8: the worker process ended with exit code 3: no such kernel"
    assert str(caught.value) == expected


def test_a_killed_worker_names_the_signal_and_a_likely_cause(worker: Link) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(MeasurementError, match=r"was ended by SIGKILL \(out of memory\?"):
        worker.request({"do": "memory"}, timeout_s=60)


def test_a_worker_that_hangs_is_ended() -> None:
    with _python("import time; time.sleep(600)") as link:
        with pytest.raises(MeasurementError, match=r"no answer to .load. within 0\.2 s"):
            link.request({"do": "load"}, timeout_s=0.2)
        assert not psutil.pid_exists(link.pid)


def test_a_worker_ends_when_its_input_closes(worker: Link) -> None:
    worker.close()
    assert not psutil.pid_exists(worker.pid)
    worker.close()


def test_a_worker_ends_with_a_parent_that_is_killed_in_the_middle_of_a_run(
    bundle: Path, tmp_path: Path
) -> None:
    """The parent is killed while its worker is inside a turn of a minute."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from pathlib import Path
from benchmark.config import Protocol
from benchmark.devices import Job, get_device
names = ("input_ids", "attention_mask", "token_type_ids")
feed = {{name: np.ones((1, 8), np.int32) for name in names}}
job = Job("x", "onnxruntime", Path({str(_model(bundle))!r}), threads=1, feeds=[feed])
timer = get_device("local").open(job)
timer.load()
print(timer._link.pid, flush=True)
timer.turn(Protocol(min_runs=1, min_s=60, max_s=60, rounds=1).turn)
"""
    with _python(script) as parent:
        child = int(_line(parent))
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _alive(child)


def _line(link: Link) -> str:
    output = link._process.stdout
    assert output is not None
    return output.readline().decode()


def _alive(pid: int) -> bool:
    # In a container without an init process an orphan may stay a zombie.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_device_resolves_and_an_unknown_one_is_refused() -> None:
    for kind, place in DEVICES.items():
        module, _, name = place.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert issubclass(found, Device) and found.kind == kind
    assert get_device("local").describe().driver == "local"
    with pytest.raises(ConfigError, match="there is one local device"):
        get_device("local:this")
    with pytest.raises(ConfigError, match="unknown device 'locl': did you mean 'local'"):
        get_device("locl")


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_imported_before_the_clock_exists(name: str) -> None:
    module = get_engine(name).module
    assert module is None or importlib.util.find_spec(module) is not None


_EVERYWHERE = """
import os, subprocess, sys
from pathlib import Path
import numpy as np
from benchmark.config import DeviceOptions
from benchmark.devices import Job, get_device
from benchmark.devices.browser import device as browser
from edge.engines import get_engine

onnx, tflite, page = map(Path, sys.argv[1:])
names = ("input_ids", "attention_mask", "token_type_ids")
feed = {name: np.ones((1, 8), np.int32) for name in names}
engines = {"onnxruntime": onnx, "litert": tflite, "tflite-runtime": tflite}
for engine, path in engines.items():
    if not get_engine(engine).availability().available:
        continue
    with get_engine(engine).open(path) as session:
        session.run(feed)
    with get_device("local") as device, device.open(Job("a", engine, path, 1, [feed])) as timer:
        timer.load()
browser.PAGE = page
with get_device("browser", DeviceOptions(timeout_s=0.1)) as device:
    device.describe()
print(subprocess.run(["sh", "-c", "echo $TMPDIR"], capture_output=True, text=True).stdout, end="")
"""


def test_temporary_files_of_others_are_where_they_were(
    bundle: Path, tmp_path: Path, page_folder: Path
) -> None:
    """TMPDIR is what it was for programs started afterwards, and nothing is left in it."""
    model, temporary = tmp_path / "model.tflite", tmp_path / "temporary"
    write_tflite(model, lengths=(8,), vocabulary=32)
    temporary.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    env["TMPDIR"] = str(temporary)
    argv = [sys.executable, "-c", _EVERYWHERE, bundle / "model-fp32.onnx", model, page_folder]
    done = subprocess.run(list(map(str, argv)), cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(temporary)
    assert list(temporary.iterdir()) == []
