"""`coreml:DEVICE`: an iPhone or iPad at a Mac, through coremltools' remote device and devicectl.

coremltools builds a small app with Xcode, installs it and sends it one prediction at a time; the
app itself measures how long each took. Nobody has run this file on a Mac yet: its tests replace
what only a Mac has, and say so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmark.config import Block, DeviceOptions, Protocol
from benchmark.devices.base import (
    Device,
    DiscoveredDevice,
    Job,
    Loaded,
    ModelRefused,
    Timer,
    Turn,
    Warmed,
)
from benchmark.measure.environment import utc_now
from benchmark.measure.inputs import Feed
from benchmark.schema import Conditions, DeviceInfo, Memory
from edge.console import hush, say
from edge.engines.base import Availability
from edge.errors import ConfigError, EdgeError, MeasurementError
from edge.process.wire import Array

T = TypeVar("T")
_ENGINE, _FORMAT = "coreml", "coreml"
# Environment variable with the signing team of the app, by Xcode's own name.
_TEAM = "DEVELOPMENT_TEAM"
_UNITS = "CPU, GPU and Neural Engine"
_ALONE = "every prediction was sent over the cable on its own, and the device rested in between"
_NONE = "none is paired with Xcode: pair one in its window Devices and Simulators"
_SYSTEMS = {"iphone": "iOS", "ipad": "iPadOS", "mac": "macOS", "applewatch": "watchOS"}


class CoreMLDevice(Device):
    """One Apple device that Xcode is paired with.

    Raises ConfigError, one line, if it cannot be used.
    """

    kind = "coreml"

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        _require_mac()
        self._timeout_s = options.timeout_s
        self._device = _choose(_attached(), address)
        self.address = str(self._device.identifier)
        self._loop = _Loop()
        self._folder: Path | None = None
        self._session: Any = None

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List the devices that Xcode knows; nothing is installed on them."""
        try:
            _require_mac()
            seen = _attached()
        except EdgeError as error:
            return [DiscoveredDevice(cls.kind, "iPhones and iPads", reason=str(error))]
        if not seen:
            return [DiscoveredDevice(cls.kind, "iPhones and iPads", reason=_NONE)]
        return [
            DiscoveredDevice(
                f"{cls.kind}:{device.identifier}",
                f"{device.name} ({_system(device)})",
                () if _obstacle(device) else (_FORMAT,),
                _obstacle(device),
            )
            for device in seen
        ]

    def availability(self, engine: str) -> Availability:
        if engine != _ENGINE:
            return Availability(
                None, f"a Core ML device does not run {engine}", "--format coreml leaves it out"
            )
        return Availability(_system(self._device))

    def describe(self) -> DeviceInfo:
        import importlib.metadata

        return DeviceInfo(
            driver=self.kind,
            address=self.address,
            kind="real",
            model=f"{self._device.name} ({self._device.type.value})",
            soc=None,
            abi="arm64",
            cores=None,
            os=f"{_system(self._device)} ({self._device.os_build_number})",
            ram_mb=None,
            versions={"coremltools": importlib.metadata.version("coremltools")},
        )

    def conditions(self) -> Conditions:
        # A Mac cannot read the clock, the temperature or the battery of a phone.
        return Conditions(at_utc=utc_now())

    def open(self, job: Job) -> Timer:
        return _RemoteTimer(job, self._prepared(), self._loop, self._timeout_s)

    def close(self) -> None:
        if self._session is not None:
            with contextlib.suppress(Exception):
                self._session.session.stop()
            self._session = None
        self._loop.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _prepared(self) -> Any:
        """Return the device with the app, which is built, installed and started once."""
        if self._session is None:
            from coremltools.models.ml_program.experimental.remote_device import (
                AppSigningCredentials,
            )

            self._folder = Path(tempfile.mkdtemp(prefix="edge-coreml-"))
            say(f"building and installing coremltools' app on {self._device.name}")
            signature = AppSigningCredentials(development_team=os.environ.get(_TEAM, ""))
            self._session = self._loop.run(
                self._device.prepare_for_model_debugging(
                    credentials=signature, working_directory=self._folder
                ),
                f"{self._device.name}: coremltools' app could not be started (set {_TEAM} to your "
                "team in Xcode, and turn Developer Mode on)",
                self._timeout_s,
            )
        return self._session


class _RemoteTimer(Timer):
    """A model in coremltools' app."""

    def __init__(self, job: Job, device: Any, loop: _Loop, timeout_s: float) -> None:
        from coremltools import ComputeUnit
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

        self._job, self._loop, self._timeout_s = job, loop, timeout_s
        weights = job.path / "Data" / "com.apple.CoreML" / "weights"
        self._model: Any = MLModelAsyncWrapper.from_spec_or_path(
            spec_or_path=str(job.path),
            weights_dir=str(weights),
            compute_units=ComputeUnit.ALL,
            device=device,
        )
        self._next = 0

    def load(self) -> Loaded:
        try:
            self._ask(self._model.load(), "loading")
        except MeasurementError as error:
            raise ModelRefused(str(error)) from None
        load_ns = self._model.load_duration_in_nano_seconds
        if load_ns is None:
            raise MeasurementError(
                f"{self._job.label}: the device did not report how long loading took"
            )
        first_ns = self._predict(self._job.feeds[0])
        return Loaded(load_ns / 1e6, first_ns / 1e6, provider=_UNITS, notes=(_ALONE,))

    def warm(self, protocol: Protocol) -> Warmed:
        raw_ns = self._runs(protocol.warmup_runs, protocol.warmup_s, protocol.warmup_max_s)
        return Warmed(runs=len(raw_ns), duration_s=sum(raw_ns) / 1e9)

    def turn(self, block: Block) -> Turn:
        unrecorded_ns = self._predict(self._job.feeds[(self._next + 1) % len(self._job.feeds)])
        raw_ns = self._runs(block.runs, block.min_s, block.max_s)
        return Turn(raw_ns=raw_ns, duration_s=(unrecorded_ns + sum(raw_ns)) / 1e9)

    def memory(self) -> Memory | None:
        return None

    def answers(self, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
        for feed in feeds:
            outputs = self._ask(self._model.predict(_plain(feed)), "predicting")
            yield {name: np.asarray(value) for name, value in outputs.items()}

    def close(self) -> None:
        if self._model is not None:
            with contextlib.suppress(MeasurementError):
                self._ask(self._model.unload(), "unloading")
            self._model = None

    def _runs(self, runs: int, min_s: float, max_s: float) -> list[int]:
        """Return nanoseconds of each run; wall time counts for max_s, for the cable is slow."""
        begin = time.monotonic()
        raw_ns: list[int] = []
        while True:
            self._next = (self._next + 1) % len(self._job.feeds)
            raw_ns.append(self._predict(self._job.feeds[self._next]))
            enough = len(raw_ns) >= runs and sum(raw_ns) >= min_s * 1e9
            if enough or time.monotonic() - begin >= max_s:
                return raw_ns

    def _predict(self, feed: Feed) -> int:
        """Run one prediction; return its duration in nanoseconds, measured by the device."""
        self._ask(self._model.predict(_plain(feed)), "predicting")
        spent_ns = self._model.last_predict_duration_in_nano_seconds
        if spent_ns is None:
            raise MeasurementError(f"{self._job.label}: the device did not report how long it took")
        return int(spent_ns)

    def _ask(self, call: Coroutine[Any, Any, T], action: str) -> T:
        return self._loop.run(call, f"{self._job.label}: {action} failed", self._timeout_s)


class _Loop:
    """An event loop in a thread of its own, to which coremltools' connections are bound."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T], action: str, timeout_s: float) -> T:
        """Return the coroutine's result; raises MeasurementError, one line starting with `what`."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            with hush():
                return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            raise MeasurementError(
                f"{action}: no answer within {timeout_s:g} s; unlock the device, and run the same "
                "command again"
            ) from None
        # Whatever coremltools and devicectl raise: classes of their own, ValueError, OSError.
        except Exception as error:
            raise MeasurementError(f"{action}: {_one_line(error)}") from None
        finally:
            future.cancel()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _require_mac() -> None:
    if platform.system() != "Darwin":
        raise ConfigError(
            "--device coreml needs a Mac with Xcode, which talks to the iPhone: run the same "
            "command there"
        )
    if shutil.which("xcrun") is None or shutil.which("xcodebuild") is None:
        raise ConfigError(
            "--device coreml needs Xcode: install it from the App Store, then run "
            "xcode-select --install"
        )
    if shutil.which("devicectl") is None:
        raise ConfigError(
            "--device coreml needs devicectl on PATH, which Xcode 15 brings: "
            'export PATH="$PATH:$(dirname $(xcrun --find devicectl))"'
        )


def _attached() -> list[Any]:
    """Return the devices that devicectl lists, as coremltools' `Device`."""
    with hush():
        from coremltools.models.ml_program.experimental.remote_device import Device as Remote

        try:
            return list(Remote.get_devices())
        except Exception as error:
            raise MeasurementError(f"xcrun devicectl list devices: {_one_line(error)}") from None


def _choose(seen: Sequence[Any], address: str | None) -> Any:
    """Return the device of a name or identifier, or the only one; raises ConfigError."""
    if not seen:
        raise ConfigError(
            "no Apple device is paired with Xcode: plug one in, trust this Mac on it, and look at "
            "xcrun devicectl list devices"
        )
    names = ", ".join(f"'{device.name}'" for device in seen)
    usable = [device for device in seen if _obstacle(device) is None]
    if address is None and len(usable) == 1:
        return usable[0]
    if address is None and len(usable) > 1:
        raise ConfigError(
            f"{len(usable)} Apple devices are connected ({names}): name one, as in "
            f"--device 'coreml:{usable[0].name}'"
        )
    matching = [
        device for device in seen if address in (None, device.name, device.identifier, device.udid)
    ]
    if not matching:
        raise ConfigError(f"no Apple device '{address}' is connected: choose from {names}")
    obstacle = _obstacle(matching[0])
    if obstacle is not None:
        raise ConfigError(obstacle)
    return matching[0]


def _obstacle(device: Any) -> str | None:
    """Return the reason for not using a device, with the remedy; None for a usable one."""
    if device.state.value != "connected":
        return f"{device.name} is {device.state.value}: plug it in and unlock it"
    if device.developer_mode_state not in ("enabled", ""):
        return f"{device.name} has Developer Mode off: turn it on in Settings > Privacy & Security"
    return None


def _system(device: Any) -> str:
    return f"{_SYSTEMS.get(device.type.value, 'version')} {device.os_version}"


def _plain(feed: Feed) -> dict[str, Array]:
    return {name: np.ascontiguousarray(value, np.int32) for name, value in feed.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
