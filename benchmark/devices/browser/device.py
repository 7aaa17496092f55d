"""A browser that opens the benchmark page, on this machine or on a phone, with a worker per model.

The page polls for the requests of `benchmark.worker.worker`, runs them, and sends the replies: see
`exchange` for the protocol, `server` for the files, `apps/web` for the page.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.config import DeviceOptions
from benchmark.devices.base import Device, DiscoveredDevice, Job, Timer
from benchmark.devices.browser.exchange import (
    GONE_S,
    Exchange,
    InvalidReply,
    NoAnswer,
    PageGone,
    PageInfo,
    PageReopened,
)
from benchmark.devices.browser.facts import browser, device_info
from benchmark.devices.browser.server import PageServer, list_files
from benchmark.devices.browser.timer import BrowserTimer, PageSession
from benchmark.measure.environment import utc_now
from benchmark.schema import Conditions, DeviceInfo
from edge.console import is_terminal, say
from edge.engines.base import Availability
from edge.errors import ConfigError, MeasurementError
from edge.process.wire import Arrays, Message

# Version of the protocol with the page: `PROTOCOL` of apps/web/src/protocol.ts.
PROTOCOL = 1
# Folder of the page, from `make web` or a wheel; only a clone has its source.
PAGE = Path(__file__).resolve().parents[2] / "page"
_SOURCE = Path(__file__).resolve().parents[3] / "apps" / "web" / "package.json"
_BUILD = "build.json"
_PROVIDERS = ("wasm", "webgpu")
# Provider -> format -> engine.
_ENGINES = {
    "wasm": {"onnx": "onnxruntime-web", "tflite": "litert-web"},
    "webgpu": {"onnx": "onnxruntime-webgpu", "tflite": "litert-webgpu"},
}
_PACKAGES = {
    "onnxruntime-web": "onnxruntime-web",
    "onnxruntime-webgpu": "onnxruntime-web",
    "litert-web": "@litertjs/core",
}
_FAREWELL_S = 3.0
_REMIND_S = 60.0


class BrowserDevice(Device):
    """The browser that opens the page. Address: "wasm", the default, or "webgpu"."""

    kind = "browser"

    def __init__(
        self,
        address: str | None,
        options: DeviceOptions,
        *,
        gone_s: float = GONE_S,
    ) -> None:
        if address not in (None, *_PROVIDERS):
            raise ConfigError(
                f"--device browser:{address} is unknown: choose browser:wasm or browser:webgpu"
            )
        self.address = address
        self._provider = address or "wasm"
        self._timeout_s = options.timeout_s
        self._versions = page_versions(PAGE)
        self.exchange = Exchange(gone_s=gone_s)
        self.server = PageServer(
            self.exchange,
            list_files(PAGE),
            host=options.host,
            port=options.port,
            title="edge benchmark",
            certificate=options.certificate,
        )
        self._announced, self._complete = False, True
        self._numbers = itertools.count(1)
        self._session = PageSession(self.exchange, self.server.files, options.timeout_s)

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List one entry for any browser, if the page is built."""
        title = "a browser on this machine, or on a phone"
        try:
            page_versions(PAGE)
        except ConfigError as error:
            return [DiscoveredDevice(cls.kind, title, reason=str(error))]
        return [DiscoveredDevice(cls.kind, title, tuple(_ENGINES["wasm"]))]

    @property
    def interruptions(self) -> int:
        return max(0, self.exchange.openings - 1)

    def engine(self, format_name: str, runtimes: Sequence[str]) -> str:
        return _ENGINES[self._provider].get(format_name, runtimes[0])

    def availability(self, engine: str) -> Availability:
        if engine == "litert-webgpu":
            reason = "TFLite is timed in WebAssembly only"
            return Availability(None, reason, "use --device browser")
        if engine not in _PACKAGES:
            return Availability(None, "a browser cannot run it", "use another --device")
        if engine == "onnxruntime-webgpu" and self.page().webgpu is None:
            reason = "this browser has no WebGPU, or not at this address"
            return Availability(None, reason, "use --device browser, or see docs/browser.md")
        return Availability(self._versions[_PACKAGES[engine]])

    def describe(self) -> DeviceInfo:
        return device_info(self.exchange.info, self._versions, address=self.address)

    def conditions(self) -> Conditions:
        battery = self.exchange.page_state.battery
        return Conditions(
            at_utc=utc_now(),
            battery_percent=None if battery is None else round(100 * battery.level, 1),
            charging=None if battery is None else battery.charging,
        )

    def ready(self) -> None:
        self.page()

    def open(self, job: Job) -> Timer:
        self.page()
        return BrowserTimer(job, self._session, f"model-{next(self._numbers)}")

    def close(self) -> None:
        if self.exchange.info is not None:
            with contextlib.suppress(PageReopened, PageGone, NoAnswer, InvalidReply):
                farewell = {"do": "finish", "complete": self._complete}
                self.exchange.ask(farewell, validate=_accept_any, timeout_s=_FAREWELL_S)
        self.server.close()

    def __exit__(self, *exc: object) -> None:
        self._complete = exc[0] is None
        super().__exit__(*exc)

    def page(self) -> PageInfo:
        """Wait for a page, return its device; raises MeasurementError if none opens in time."""
        if not self._announced:
            self._announced = True
            self._announce()
            deadline = time.monotonic() + self._timeout_s
            while not self.exchange.wait(min(_REMIND_S, max(0, deadline - time.monotonic()))):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                say(f"still waiting for a browser, {left_s:.0f} s more")
            if self.exchange.info is not None:
                self._welcome(self.exchange.info)
        if self.exchange.info is None:
            raise MeasurementError(
                f"no browser opened {self.server.address} within {self._timeout_s:g} s: repeat "
                "the command and open the page, or wait longer with --timeout"
            )
        return self.exchange.info

    def _announce(self) -> None:
        say(f"open {self.server.address} in a browser: waiting for it")
        if is_terminal():
            with contextlib.suppress(ImportError):
                import segno

                segno.make(self.server.address, error="l").terminal(sys.stderr, compact=True)

    def _welcome(self, info: PageInfo) -> None:
        say(f"the page is open in {browser(info)}")
        if not info.isolated:
            say(
                "the page came from an address that browsers do not isolate: one thread only, and "
                f"a clock that ticks every {info.clock_us:g} us (docs/browser.md says what to do)"
            )


def _accept_any(reply: Message, arrays: Arrays) -> None:
    """Accept any reply."""


def page_versions(page: Path) -> dict[str, str]:
    """Return the versions of a built page's engines; raises ConfigError if it must be built."""
    remedy = _remedy()
    try:
        values: Any = json.loads((page / _BUILD).read_text(encoding="utf-8"))
        versions = {str(name): str(value) for name, value in values["versions"].items()}
        list_files(page)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"the page of --device browser is not built: {remedy}") from None
    if values.get("protocol") != PROTOCOL or not {*_PACKAGES.values()} <= set(versions):
        raise ConfigError(f"the page of --device browser is of another version: {remedy}")
    return versions


def _remedy() -> str:
    """Return the remedy for a missing page, which is not in git."""
    if not _SOURCE.is_file():
        return (
            "install a wheel that was built by make wheel, which has it, or run make web in a "
            "clone, with Node 20 or later"
        )
    if shutil.which("npm") is None:
        return "run make web; that needs Node 20 or later with npm, which is not installed"
    return "run make web, which needs Node 20 or later"
