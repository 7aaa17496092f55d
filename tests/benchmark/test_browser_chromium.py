"""`--device browser` in a real headless Chromium, as a phone shows it and slowed down like one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import Protocol
from benchmark.config import DeviceOptions
from benchmark.devices.browser import device as browser
from benchmark.devices.browser.device import BrowserDevice
from benchmark.devices.browser.exchange import Exchange
from edge.bundle import Bundle
from edge.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "apps" / "web"
CHROMIUM = Path(os.environ.get("EDGE_CHROMIUM", "/usr/bin/chromium"))
PHONE = ("--throttle", "4", "--seconds", "120")


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} does not exist (EDGE_CHROMIUM names the browser)")
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        pytest.skip("the page's tools are not installed: make web")
    try:
        browser.page_versions(browser.PAGE)
    except ConfigError as error:
        pytest.skip(str(error))


class Chromium:
    """Browsers that were opened, by what they were opened with."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def open(self, address: str, *arguments: str) -> None:
        argv = ["node", "tests/open.mjs", address, *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, cwd=WEB, stdout=pipe, stderr=pipe, text=True)
        self._running.append(process)

    def said(self, number: int = 0) -> dict[str, Any]:
        """What one of the browsers that are open told at its end, by default the first."""
        out, errors = self._running.pop(number).communicate(timeout=120)
        assert out, errors[-2000:]
        found: dict[str, Any] = json.loads(out)
        return found

    def close(self) -> None:
        for process in self._running:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def chromium(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Chromium]]:
    """`chromium(...)` has the next device open itself in a browser with these arguments."""
    opened = Chromium()

    def prepare(*arguments: str) -> Chromium:
        monkeypatch.setattr(
            BrowserDevice,
            "_announce",
            lambda device: opened.open(device.server.address, *arguments),
        )
        return opened

    yield prepare
    opened.close()


def run(bundle: Path, protocol: Protocol, **values: Any) -> benchmark.BenchmarkResult:
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,), protocol=protocol, options=DeviceOptions(timeout_s=120), **values
    )
    return benchmark.benchmark(config)


def accuracies(found: benchmark.BenchmarkResult) -> dict[str, float]:
    return {row.model.id: row.accuracy.value for row in found.rows if row.accuracy is not None}


def test_a_phone_whose_page_is_reloaded_in_the_middle(
    bundle: Path, protocol: Protocol, chromium: Callable[..., Chromium], tmp_path: Path
) -> None:
    opened = chromium(*PHONE, "--reload-at", "3", "--shots", str(tmp_path))
    rows = tmp_path / "eval.tsv"
    rows.write_text("text\tlabel\n" + "ok\tno\ndull\tyes\ngood and bad\tmaybe\n" * 7)
    found = run(bundle, protocol, device="browser", format=("onnx",), eval=rows, threads=(2,))
    page = opened.said()
    assert found.failure is None
    for row in found.rows:
        assert row.check is not None and row.check.status == "passed"
        assert row.latency_ms is not None and len(row.latency_ms.blocks) == protocol.rounds
        assert row.latency_ms.load is not None and row.latency_ms.load > 0
        assert (row.runtime.name, row.runtime.threads) == ("onnxruntime-web", 2)
        assert row.stages is not None and row.stages.tokenize.n == 5
        assert row.memory is not None and (row.memory.wasm_mb or 0) > 1
        assert row.protocol.interruptions == 1
        assert row.device.details["cross_origin_isolated"] == "yes"
        assert "Chrom" in row.device.versions["browser"]
    local = run(bundle, protocol, format=("onnx",), eval=rows)
    assert accuracies(found) == accuracies(local) and len(accuracies(local)) == 2
    assert (page["state"], page["wide"], page["errors"]) == ("finished", False, [])
    assert "onnx-int8" in page["text"] and "Finished" in page["text"]
    assert (tmp_path / "running.png").is_file() and (tmp_path / "finished.png").is_file()


def test_a_second_browser_is_refused(
    bundle: Path,
    protocol: Protocol,
    chromium: Callable[..., Chromium],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = chromium(*PHONE)
    welcome, second = BrowserDevice._welcome, {}

    def welcome_two(device: BrowserDevice, info: Any) -> None:
        opened.open(device.server.address, "--until", "refused", "--desktop")
        second.update(opened.said(1))
        welcome(device, info)

    monkeypatch.setattr(BrowserDevice, "_welcome", welcome_two)
    found = run(bundle, protocol, device="browser", format=("onnx",), precision=("fp32",))
    assert found.failure is None
    assert opened.said()["state"] == "finished"
    assert second["state"] == "refused" and "Another page is at work" in second["text"]


def test_a_browser_that_is_closed_leaves_what_was_recorded(
    bundle: Path,
    protocol: Protocol,
    chromium: Callable[..., Chromium],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chromium(*PHONE, "--close-at", "3")
    quick = Exchange(gone_s=7)
    monkeypatch.setattr(browser, "Exchange", lambda **_: quick)
    longer = protocol.model_copy(update={"min_s": 4.0, "max_s": 30.0})
    found = run(bundle, longer, device="browser", format=("onnx",))
    assert found.failure is not None and "the page has gone" in found.failure
    for row in found.rows:
        assert row.latency_ms is not None and 1 <= len(row.latency_ms.blocks) < longer.rounds
        assert row.validity.status == "limited"


def test_a_converted_bundle(
    bert_checkpoint: Path, protocol: Protocol, chromium: Callable[..., Chromium], tmp_path: Path
) -> None:
    from converters import ConvertConfig, convert

    converted = tmp_path / "bundle"
    kinds = {"format": ("onnx", "tflite"), "precision": ("fp32", "int8"), "seq_length": (32,)}
    convert(ConvertConfig.build({"source": str(bert_checkpoint), "output": converted, **kinds}))
    rows = tmp_path / "eval.tsv"
    labels = Bundle.open(converted).manifest.labels
    texts = ("a good film", "nothing to see here", "so and so", "the worst of all")
    rows.write_text(
        "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text in texts for label in labels)
    )
    opened = chromium(*PHONE)
    chosen = {"format": ("onnx", "tflite"), "precision": ("fp32", "int8"), "eval": rows}
    found = run(converted, protocol, device="browser", threads=(2,), **chosen)
    assert opened.said()["state"] == "finished"
    assert found.failure is None and len(found.rows) == 4
    for row in found.rows:
        assert row.check is not None and row.check.status == "passed", row.model.id
        assert row.latency_ms is not None and row.stages is not None
    assert {row.runtime.name for row in found.rows} == {"onnxruntime-web", "litert-web"}
    assert accuracies(found) == accuracies(run(converted, protocol, **chosen))


def test_webgpu(bundle: Path, protocol: Protocol, chromium: Callable[..., Chromium]) -> None:
    opened = chromium("--webgpu", "--seconds", "120")
    found = run(bundle, protocol, device="browser:webgpu", format=("onnx",), precision=("fp32",))
    (row,) = found.rows
    if row.latency_ms is None:
        pytest.skip(f"{CHROMIUM} has no WebGPU here: {row.validity.reasons[0]}")
    assert opened.said()["state"] == "finished"
    assert (row.runtime.name, row.runtime.provider) == ("onnxruntime-webgpu", "WebGPU")
    assert row.check is not None and row.check.status == "passed"
    software = "swiftshader" in row.device.details["webgpu"]
    assert any("in software" in reason for reason in row.validity.reasons) == software
