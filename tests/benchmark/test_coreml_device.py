"""`--device coreml` off a Mac, and on something that stands for one.

No Mac was there to run it on. What stands for one: devicectl's JSON, which the real coremltools
reads; its app and the iPhone, which are the MIL interpreter and a made-up duration.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmark
from benchmark.config import DeviceOptions
from benchmark.devices import find_devices, get_device
from edge.errors import ConfigError, MeasurementError
from tests.benchmark import conftest, tiny_tflite

PHONE = {
    "identifier": "00008110-ABC",
    "deviceProperties": {
        "name": "My iPhone",
        "osVersionNumber": "17.5",
        "osBuildUpdate": "21F79",
        "developerModeStatus": "enabled",
    },
    "hardwareProperties": {"deviceType": "iPhone", "udid": "UDID-1"},
    "connectionProperties": {"tunnelState": "connected"},
}
DURATION_NS = 2_500_000
LENGTH = 32


def test_elsewhere_it_is_refused_in_one_line() -> None:
    if platform.system() == "Darwin":
        pytest.skip("a Mac may well have the device")
    with pytest.raises(ConfigError, match="needs a Mac with Xcode, .*run the same command there"):
        get_device("coreml:My iPhone", DeviceOptions())
    (found,) = [one for one in find_devices() if one.spec == "coreml"]
    assert found.formats == () and "needs a Mac with Xcode" in str(found.reason)


@pytest.fixture(scope="module")
def apple_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .mlpackage of a few operators, and an artifact of another format."""
    root, vocabulary = tmp_path_factory.mktemp("made"), len(conftest.WORDS)
    _write_package(root / "small.mlpackage", tiny_tflite.weights(vocabulary))
    conftest.write_onnx(root / "small.onnx", width=16, vocabulary=vocabulary)
    cases = tiny_tflite.golden_cases(vocabulary)
    files = {("coreml", "fp32"): root / "small.mlpackage", ("onnx", "fp32"): root / "small.onnx"}
    folder: Path = conftest.write_bundle(root / "student", files, cases=cases, lengths=(LENGTH,))
    return folder


def _write_package(path: Path, weights: Any) -> None:
    """Masked sums of embeddings."""
    import coremltools
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    specs = [mb.TensorSpec(shape=(1, LENGTH), dtype=types.int32) for _ in range(3)]

    @mb.program(input_specs=specs, opset_version=coremltools.target.iOS17)
    def program(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        words = mb.gather(x=weights["words"], indices=input_ids, axis=0)
        kinds = mb.gather(x=weights["types"], indices=token_type_ids, axis=0)
        mask = mb.expand_dims(x=mb.cast(x=attention_mask, dtype="fp32"), axes=[2])
        kept = mb.mul(x=mb.add(x=words, y=kinds), y=mask)
        return mb.reduce_sum(x=kept, axes=[1], name="logits")

    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
    )
    model.save(str(path))


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine that says it is a Mac; what devicectl lists, and what was asked of the app."""
    from coremltools.models.ml_program.experimental import async_wrapper, remote_device

    seen: dict[str, Any] = {"devices": [PHONE], "asked": [], "stopped": 0, "missing": ()}

    def found(name: str) -> str | None:
        return None if name in seen["missing"] else f"/usr/bin/{name}"

    class Session:
        def stop(self) -> None:
            seen["stopped"] += 1

    async def prepare(self: Any, credentials: Any, working_directory: Path) -> Any:
        seen["team"], seen["folder"] = credentials.development_team, working_directory
        return dataclasses.replace(self, session=Session())

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(shutil, "which", found)
    monkeypatch.setattr(
        remote_device._DeviceCtl,
        "_run_command",
        staticmethod(
            lambda command: json.loads(json.dumps({"result": {"devices": seen["devices"]}}))
        ),
    )
    monkeypatch.setattr(remote_device.Device, "prepare_for_model_debugging", prepare)
    monkeypatch.setattr(
        async_wrapper.MLModelAsyncWrapper,
        "from_spec_or_path",
        staticmethod(lambda **values: _App(seen, **values)),
    )
    return seen


class _App:
    """coremltools' remote model: its methods, another engine, a made-up duration."""

    def __init__(self, seen: dict[str, Any], spec_or_path: str, device: Any, **values: Any) -> None:
        from edge.engines import get_engine

        self._seen, self._device = seen, device
        self._session = get_engine("mil-interpreter").open(Path(spec_or_path))
        self.load_duration_in_nano_seconds: int | None = None
        self.last_predict_duration_in_nano_seconds: int | None = None

    async def load(self) -> None:
        if self._seen.get("breaks"):
            raise ValueError("cannot load\nthis model")
        self._seen["asked"].append("load")
        self.load_duration_in_nano_seconds = 40_000_000

    async def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._seen["asked"].append("predict")
        self.last_predict_duration_in_nano_seconds = DURATION_NS
        return self._session.run(inputs)

    async def unload(self) -> None:
        self._seen["asked"].append("unload")


PROTOCOL = benchmark.Protocol(
    min_runs=10, min_s=0, max_s=60, rounds=5, warmup_runs=2, warmup_s=0, warmup_max_s=10
)


def test_a_bundle_is_timed_on_what_stands_for_an_iphone(
    mac: dict[str, Any], apple_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVELOPMENT_TEAM", "TEAM42")
    config = benchmark.BenchmarkConfig(
        bundles=(apple_bundle,),
        format=("coreml", "onnx"),
        precision=("fp32",),
        device="coreml",
        protocol=PROTOCOL,
    )
    rows = {row.model.format: row for row in benchmark.benchmark(config).rows}
    row = rows["coreml"]
    assert (row.device.driver, row.device.model) == ("coreml", "My iPhone (iphone)")
    assert row.device.os == "iOS 17.5 (21F79)"
    assert row.runtime.version == "iOS 17.5"
    assert row.latency_ms is not None
    assert (row.latency_ms.n, row.latency_ms.p50, row.latency_ms.load) == (10, 2.5, 40)
    assert row.check is not None and row.check.status == "passed"
    assert any("sent over the cable on its own" in reason for reason in row.validity.reasons)
    assert rows["onnx"].latency_ms is None
    assert "does not run onnxruntime" in rows["onnx"].validity.reasons[0]
    assert mac["team"] == "TEAM42"
    # The app is ended, and what was built for it removed.
    assert mac["stopped"] == 1
    assert mac["asked"][-1] == "unload"
    assert not mac["folder"].exists()


def test_the_only_device_that_is_connected_is_taken(mac: dict[str, Any]) -> None:
    asleep = {**PHONE, "identifier": "2", "connectionProperties": {"tunnelState": "disconnected"}}
    asleep["deviceProperties"] = {**PHONE["deviceProperties"], "name": "Old iPad"}  # type: ignore[dict-item]
    mac["devices"] = [PHONE, asleep]
    with get_device("coreml", DeviceOptions()) as device:
        assert device.address == "00008110-ABC"
    with pytest.raises(ConfigError, match="Old iPad is disconnected: plug it in and unlock it"):
        get_device("coreml:Old iPad", DeviceOptions())
    with pytest.raises(ConfigError, match="no Apple device 'Mini' is connected: choose from 'My"):
        get_device("coreml:Mini", DeviceOptions())
    found = {one.spec: one for one in find_devices() if one.spec.startswith("coreml")}
    assert found["coreml:00008110-ABC"].formats == ("coreml",)
    assert found["coreml:2"].formats == () and "plug it in" in str(found["coreml:2"].reason)
    awake = {**asleep, "connectionProperties": {"tunnelState": "connected"}}
    mac["devices"] = [PHONE, awake]
    with pytest.raises(ConfigError, match="2 Apple devices are connected .*: name one, as in"):
        get_device("coreml", DeviceOptions())


def test_what_a_mac_may_lack_is_named(mac: dict[str, Any]) -> None:
    mac["devices"] = []
    with pytest.raises(ConfigError, match="no Apple device is paired with Xcode: plug one in"):
        get_device("coreml", DeviceOptions())
    mac["devices"] = [
        {
            **PHONE,
            "deviceProperties": {**PHONE["deviceProperties"], "developerModeStatus": "disabled"},
        }  # type: ignore[dict-item]
    ]
    with pytest.raises(ConfigError, match="has Developer Mode off: turn it on in Settings"):
        get_device("coreml", DeviceOptions())
    mac["missing"] = ("xcodebuild",)
    with pytest.raises(ConfigError, match="needs Xcode: install it from the App Store"):
        get_device("coreml", DeviceOptions())
    mac["missing"] = ("devicectl",)
    with pytest.raises(ConfigError, match="needs devicectl on PATH"):
        get_device("coreml", DeviceOptions())


def test_what_coremltools_raises_is_one_line(mac: dict[str, Any], apple_bundle: Path) -> None:
    from benchmark.devices import Job, ModelRefused

    feed = {
        name: np.ones((1, LENGTH), np.int32)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    job = Job("coreml-fp32", "coreml", apple_bundle / "model-fp32.mlpackage", 1, [feed])
    mac["breaks"] = True
    with get_device("coreml", DeviceOptions()) as device, device.open(job) as timer:
        with pytest.raises(
            ModelRefused, match="coreml-fp32: loading failed: cannot load this model"
        ):
            timer.load()
    mac["breaks"] = False

    async def slow(self: _App, inputs: dict[str, Any]) -> dict[str, Any]:
        import asyncio

        await asyncio.sleep(60)
        return {}

    with (
        pytest.MonkeyPatch.context() as patch,
        get_device("coreml", DeviceOptions(timeout_s=0.5)) as device,
    ):
        patch.setattr(_App, "predict", slow)
        with device.open(job) as timer:
            with pytest.raises(
                MeasurementError, match=r"predicting failed: no answer within 0\.5 s"
            ):
                timer.load()
