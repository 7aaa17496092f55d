"""`--device browser` without a browser: what happens when a page comes, goes, comes back or lies.
`browser_page.py` stands for the page."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmark
from benchmark import Protocol
from benchmark.config import Block, DeviceOptions
from benchmark.devices import Job, ModelRefused
from benchmark.devices.browser import device as browser
from benchmark.devices.browser.device import BrowserDevice
from benchmark.devices.browser.exchange import Exchange
from edge.errors import MeasurementError
from edge.storage import sha256
from tests.benchmark import browser_page as pages

ROOT = Path(__file__).resolve().parents[2]
FEED = {"input_ids": np.ones((1, 4), np.int32)}


@pytest.fixture
def opened(
    page_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Any]]:
    """`opened(...)` has every device announce itself to a new fake page; the list of these."""

    def open_with(**values: Any) -> list[Any]:
        made: list[Any] = []

        def announce(device: BrowserDevice) -> None:
            made.append(pages.FakePage(device.server.address, tmp_path, **values))

        monkeypatch.setattr(BrowserDevice, "_announce", announce)
        return made

    return open_with


def run(bundle: Path, protocol: Protocol, **values: Any) -> benchmark.BenchmarkResult:
    journal = values.pop("journal", None)
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,), device="browser", protocol=protocol, **values
    )
    return benchmark.benchmark(config, journal=journal)


# A whole benchmark.


def test_a_benchmark_in_a_page(
    bundle: Path, protocol: Protocol, opened: Callable[..., list[Any]], tmp_path: Path
) -> None:
    made = opened()
    rows = tmp_path / "eval.tsv"
    rows.write_text("text\tlabel\n" + "ok\tno\ndull\tyes\ngood and bad\tmaybe\n" * 5)
    found = run(bundle, protocol, eval=rows, threads=(2,))
    made[0].join()
    onnx = [row for row in found.rows if row.model.format == "onnx"]
    assert [row.runtime.name for row in onnx] == ["onnxruntime-web"] * 2
    for row in onnx:
        assert row.latency_ms is not None and row.latency_ms.n >= protocol.min_runs
        assert (row.runtime.version, row.runtime.provider) == ("1.2.3", "WebAssembly")
        assert row.check is not None and row.check.status == "passed"
        assert row.accuracy is not None and row.accuracy.on_device
        assert row.stages is not None and row.stages.e2e.n > 0
        assert row.memory is not None and row.memory.wasm_mb == 16.8
        assert row.device.model == "Pixel 9" and row.device.os == "Android 15.0.0"
        assert row.device.versions["browser"] == "Google Chrome 140.0.1"
    (coreml,) = [row for row in found.rows if row.model.format == "coreml"]
    assert coreml.validity.reasons == ("a browser cannot run it (use another --device)",)
    assert made[0].asked[-1] == "finish"
    local = benchmark.benchmark(
        benchmark.BenchmarkConfig(bundles=(bundle,), protocol=protocol, eval=rows)
    )
    assert [r.accuracy.value for r in onnx if r.accuracy] == [
        r.accuracy.value for r in local.rows if r.accuracy
    ]


def test_a_page_that_is_opened_again_goes_on(
    bundle: Path, protocol: Protocol, opened: Callable[..., list[Any]]
) -> None:
    # 2 models are loaded and warmed up; then in their turns, and in the questions after these.
    made = opened(reopen_at=(8, 26))
    found = run(bundle, protocol, format=("onnx",))
    made[0].join()
    assert found.failure is None
    assert {row.protocol.interruptions for row in found.rows} == {2}
    for row in found.rows:
        assert row.latency_ms is not None and len(row.latency_ms.blocks) == protocol.rounds
        assert row.check is not None and row.check.status == "passed"
    # Both models were loaded once, and again after each opening.
    assert made[0].asked.count("load") == 6


def test_a_page_that_goes_away_leaves_what_was_recorded(
    bundle: Path,
    protocol: Protocol,
    opened: Callable[..., list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = Exchange(gone_s=0.5)
    monkeypatch.setattr(browser, "Exchange", lambda **_: quick)
    opened(leave_at=12)
    journal = tmp_path / "measuring.jsonl"
    first = run(bundle, protocol, format=("onnx",), journal=journal)
    assert first.failure is not None and "the page has gone" in first.failure
    recorded = len(journal.read_text().splitlines()) - 1
    assert recorded == 7
    monkeypatch.undo()
    monkeypatch.setattr(browser, "PAGE", tmp_path / "dist")
    made = opened()
    second = run(bundle, protocol, format=("onnx",), journal=journal)
    assert second.failure is None
    assert made[0].asked.count("turn") == 2 * protocol.rounds - recorded
    assert {row.protocol.interruptions for row in second.rows} == {1}


def test_a_model_that_the_browser_cannot_load_is_left_out(
    bundle: Path, protocol: Protocol, opened: Callable[..., list[Any]]
) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any] | None:
        if request["do"] == "load" and request["label"] == "onnx-fp32":
            return {"error": "no kernel for\nNothing"}
        return None

    opened(answer=answer)
    found = run(bundle, protocol, format=("onnx",))
    refused, timed = found.rows
    assert refused.validity.status == "not_measured"
    assert refused.validity.reasons == ("the browser cannot run it: no kernel for Nothing",)
    assert timed.latency_ms is not None and timed.check is not None
    assert any("the browser cannot run it" in sentence for sentence in found.not_measured)


def test_a_sweep_beside_a_baseline(
    bundle: Path, baseline_bundle: Path, protocol: Protocol, opened: Callable[..., list[Any]]
) -> None:
    made = opened()
    baseline = benchmark.Baseline(name="bert-base", bundle=baseline_bundle)
    values = {"format": ("onnx",), "precision": ("fp32",), "threads": (1, 2)}
    found = run(bundle, protocol, baseline=baseline, **values)
    made[0].join()
    own = [row for row in found.rows if row.role == "artifact"]
    assert [row.runtime.threads for row in own] == [1, 2]
    for row in own:
        assert row.ratio_same_engine is not None
        assert row.ratio_same_engine.engine == "onnxruntime-web"
    # The models of the first setting were ended before those of the second were loaded.
    assert made[0].most == 2 and made[0].asked.count("load") == 4


def test_what_a_page_says_of_its_figures_is_in_the_row(
    bundle: Path, protocol: Protocol, opened: Callable[..., list[Any]]
) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any] | None:
        if request["do"] == "warm":
            return {"runs": 1, "duration_s": 0.01, "group": 7}
        return None

    opened(answer=answer)
    found = run(bundle, protocol, format=("onnx",), precision=("fp32",), threads=(4,))
    (row,) = found.rows
    assert row.runtime.threads == 4
    assert row.validity.status == "limited"
    assert any("the mean of 7 runs" in reason for reason in row.validity.reasons)


# One question at a time.


@pytest.fixture
def asking(
    page_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Any, Any, str]]]:
    """`asking()`: a device, a line to it, and the key of the page that was opened there."""
    devices = []

    def ask(**values: Any) -> tuple[Any, Any, str]:
        device = BrowserDevice(None, DeviceOptions(timeout_s=5), **values)
        devices.append(device)
        device._announced = True
        line = pages.Line(device.server.address)
        return device, line, line.claim()[1]

    yield ask
    for device in devices:
        device.server.close()


class Asked:
    """A question in a thread of its own; `result` is what came of it."""

    def __init__(self, question: Callable[[], Any]) -> None:
        self.result: Any = None

        def work() -> None:
            try:
                self.result = question()
            except Exception as error:
                self.result = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def join(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


LOADED = {
    "load_ns": 10,
    "first_ns": 10,
    "threads": 1,
    "provider": "WebAssembly",
    "notes": [],
}


def loaded_timer(device: Any, line: Any, key: str, model: Path) -> Any:
    timer = device.open(Job("tiny", "onnxruntime-web", model, 1, [FEED]))
    asked = Asked(timer.load)
    _, request, _ = line.next(key)
    assert line.reply(key, request["number"], sha256(model), LOADED)[0] == 204
    assert asked.join().load_ms == 10 / 1e6
    return timer


BLOCK = Block(runs=1, min_s=0, max_s=1)
GOOD = {"raw_ns": [1000, 2000], "duration_s": 0.001}


@pytest.mark.parametrize("forged", ["f" * 64, "", "ü"])
def test_a_reply_of_another_file_is_refused(
    asking: Callable[..., tuple[Any, Any, str]], model: Path, forged: str
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    _, request, _ = line.next(key)
    status, reason = line.reply(key, request["number"], forged, GOOD)
    assert status == 400 and "another file" in reason
    with pytest.raises(MeasurementError, match="answer to 'turn' is refused: it is of another"):
        raise asked.join()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({}, "raw_ns"),
        ({**GOOD, "raw_ns": []}, "raw_ns"),
        ({**GOOD, "raw_ns": [-1]}, "raw_ns"),
        ({**GOOD, "raw_ns": ["x"]}, "raw_ns"),
        ({**GOOD, "duration_s": float("nan")}, "duration_s"),
        ({**GOOD, "extra": 1}, "extra"),
        ({**GOOD, "raw_ns": [10**13]}, "have passed"),
        ({**GOOD, "duration_s": 3600}, "have passed"),
    ],
)
def test_a_turn_that_cannot_be_true_is_refused(
    asking: Callable[..., tuple[Any, Any, str]], model: Path, reply: dict[str, Any], expected: str
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    _, request, _ = line.next(key)
    assert line.reply(key, request["number"], sha256(model), reply)[0] == 400
    error = asked.join()
    assert isinstance(error, MeasurementError) and expected in str(error)


def test_answers_of_another_shape_are_refused(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    good = np.zeros((1, 2), np.float32)
    for arrays in (
        {},
        {"0/logits": good},
        {"0/logits": good, "2/logits": good},
        {"0/logits": good, "1/logits": np.zeros((3, 2), np.float32)},
        {"0/logits": good, "1/": good},
    ):
        asked = Asked(lambda: list(timer.answers([FEED, FEED])))
        _, request, _ = line.next(key)
        assert line.reply(key, request["number"], sha256(model), {}, arrays)[0] == 400
        assert isinstance(asked.join(), MeasurementError)
    asked = Asked(lambda: list(timer.answers([FEED, FEED])))
    _, request, _ = line.next(key)
    arrays = {"0/logits": good, "1/logits": good}
    assert line.reply(key, request["number"], sha256(model), {}, arrays)[0] == 204
    assert len(asked.join()) == 2


@pytest.mark.parametrize("body", [b"", b"\x04\0\0\0null", b"\xff\xff\xff\xff", b"\x02\0\0\0[]x"])
def test_a_reply_that_is_no_message_is_refused(
    asking: Callable[..., tuple[Any, Any, str]], model: Path, body: bytes
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    line.next(key)
    assert line.ask("POST", "reply", body, headers={"Edge-Page": key})[0] == 400
    assert isinstance(asked.join(), MeasurementError)


def test_a_stale_reply_is_not_taken_for_the_next_ones(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    _, request, _ = line.next(key)
    number = request["number"]
    for stale in (number - 1, number + 1):
        assert line.reply(key, stale, sha256(model), {**GOOD, "raw_ns": [5]})[0] == 410
    # The connection broke: the page asks again, and gets the same.
    assert line.next(key)[1]["number"] == number
    assert line.reply(key, number, sha256(model), GOOD)[0] == 204
    assert asked.join().raw_ns == [1000, 2000]
    assert line.reply(key, number, sha256(model), {**GOOD, "raw_ns": [5]})[0] == 410


def test_figures_of_two_devices_are_not_mixed(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    line.ask("POST", "bye", key.encode())
    # Nothing was measured yet: any browser may come.
    status, key = line.claim("b" * 32, {**pages.INFO, "model": "Pixel 8"})
    assert status == 200
    loaded_timer(device, line, key, model)
    line.ask("POST", "bye", key.encode())
    status, reason = line.claim("c" * 32)
    assert status == 409 and "started in another browser" in reason
    assert line.claim("c" * 32, {**pages.INFO, "model": "Pixel 8", "clock_us": 7})[0] == 200


def test_another_pages_key_cannot_answer(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    _, request, _ = line.next(key)
    assert line.reply("guess", request["number"], sha256(model), GOOD)[0] == 409
    assert line.reply(key, request["number"], sha256(model), GOOD)[0] == 204
    assert asked.join().raw_ns == [1000, 2000]


def test_a_page_lost_while_it_loads_gets_one_thread_and_then_no_more(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = device.open(Job("tiny", "onnxruntime-web", model, 4, [FEED]))
    asked = Asked(timer.load)
    threads = []
    for _ in range(3):
        threads.append(line.next(key)[1]["threads"])
        key = line.claim()[1]
    assert threads == [4, 1, 1]
    error = asked.join()
    assert isinstance(error, ModelRefused) and "too little memory" in str(error)


def test_a_page_lost_once_while_it_loads_is_said(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = device.open(Job("tiny", "onnxruntime-web", model, 4, [FEED]))
    asked = Asked(timer.load)
    line.next(key)
    key = line.claim()[1]
    _, request, _ = line.next(key)
    line.reply(key, request["number"], sha256(model), LOADED)
    loaded = asked.join()
    assert loaded.threads == 1 and "more threads, so it ran on one" in loaded.notes[0]


def test_a_page_that_does_not_answer(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking()
    timer = loaded_timer(device, line, key, model)
    timer._session = dataclasses.replace(timer._session, timeout_s=0.3)
    with pytest.raises(MeasurementError, match=r"did not answer 'turn' within 0\.3 s"):
        timer.turn(BLOCK)


def test_a_page_that_falls_silent(asking: Callable[..., tuple[Any, Any, str]], model: Path) -> None:
    device, line, key = asking(gone_s=0.4)
    timer = loaded_timer(device, line, key, model)
    begin = time.monotonic()
    with pytest.raises(MeasurementError, match="the page has gone"):
        timer.turn(BLOCK)
    assert time.monotonic() - begin < 4


def test_signs_of_life_keep_a_page(
    asking: Callable[..., tuple[Any, Any, str]], model: Path
) -> None:
    device, line, key = asking(gone_s=0.6)
    timer = loaded_timer(device, line, key, model)
    asked = Asked(lambda: timer.turn(BLOCK))
    _, request, _ = line.next(key)
    beat = {"hidden": False, "battery": {"level": 0.5, "charging": False}}
    for _ in range(6):
        time.sleep(0.2)
        line.ask("POST", "beat", json.dumps(beat).encode(), headers={"Edge-Page": key})
    assert line.reply(key, request["number"], sha256(model), GOOD)[0] == 204
    assert asked.join().raw_ns == [1000, 2000]
    assert device.conditions().battery_percent == 50 and device.conditions().charging is False


def test_software_webgpu_is_said(page_folder: Path, model: Path) -> None:
    device = BrowserDevice("webgpu", DeviceOptions(timeout_s=5))
    device._announced = True
    try:
        line = pages.Line(device.server.address)
        key = line.claim(info={**pages.INFO, "webgpu": "google swiftshader"})[1]
        assert device.engine("onnx", ["onnxruntime"]) == "onnxruntime-webgpu"
        assert device.availability("onnxruntime-webgpu").version == "1.2.3"
        assert "WebAssembly only" in str(device.availability("litert-webgpu").reason)
        timer = device.open(Job("tiny", "onnxruntime-webgpu", model, 1, [FEED]))
        asked = Asked(timer.load)
        _, request, _ = line.next(key)
        line.reply(key, request["number"], sha256(model), {**LOADED, "provider": "WebGPU"})
        assert "ran WebGPU in software (google swiftshader)" in asked.join().notes[0]
    finally:
        device.server.close()


def test_a_browser_without_webgpu(page_folder: Path) -> None:
    device = BrowserDevice("webgpu", DeviceOptions(timeout_s=5))
    device._announced = True
    try:
        pages.Line(device.server.address).claim()
        assert "no WebGPU" in str(device.availability("onnxruntime-webgpu").reason)
    finally:
        device.server.close()
