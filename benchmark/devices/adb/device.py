"""`adb:SERIAL`: an Android device, through the user's `adb`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.config import DeviceOptions
from benchmark.devices.adb.app import App, AppTimer
from benchmark.devices.adb.facts import (
    DESCRIBE_SCRIPT,
    STATE_SCRIPT,
    AndroidFacts,
    read_conditions,
)
from benchmark.devices.adb.link import AdbLink, ListedDevice, find_adb, list_devices, select_device
from benchmark.devices.adb.litert import ModelTimer
from benchmark.devices.adb.onnxruntime import PerfTimer
from benchmark.devices.adb.staging import QUERY_S, Staging
from benchmark.devices.adb.tools import PROGRAMS, Tool, find_tools
from benchmark.devices.base import Device, DiscoveredDevice, Job, Timer
from benchmark.schema import Conditions, DeviceInfo
from edge.engines.base import Availability
from edge.errors import ConfigError, EdgeError
from edge.formats import FORMATS

_DOCS = "see docs/android.md"
_NONE = "none is attached: connect one on which USB debugging is allowed (docs/android.md)"


class AdbDevice(Device):
    """One Android device, and a folder of this run on it.

    Raises ConfigError, one line, if it cannot be used.
    """

    kind = "adb"

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        program = find_adb()
        self.address = select_device(program, address).serial
        self.link = AdbLink(program, self.address, timeout_s=options.timeout_s)
        self._facts = AndroidFacts.parse(_query(self.link, DESCRIBE_SCRIPT))
        self._tools, self._app = _runners(self.link, self._facts, options)
        self._titles = {engine: tool.title for engine, tool in self._tools.items()}
        self._staging = Staging(self.link)

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List the devices of `adb`; nothing is pushed to them."""
        try:
            seen = list_devices(find_adb())
        except EdgeError as error:
            return [DiscoveredDevice(cls.kind, "Android devices", reason=str(error))]
        if not seen:
            return [DiscoveredDevice(cls.kind, "Android devices", reason=_NONE)]
        return [_listing(entry, options) for entry in seen]

    def availability(self, engine: str) -> Availability:
        if engine in self._titles:
            return Availability(self._titles[engine])
        if self._app is not None and engine in self._app.engines:
            return Availability(self._app.engines[engine])
        if engine not in PROGRAMS:
            return Availability(None, f"Android does not run {engine}", "leave it out")
        return Availability(
            None,
            f"nothing on the device runs {engine}",
            f"--tools FOLDER with {PROGRAMS[engine]}, {_DOCS}",
        )

    def describe(self) -> DeviceInfo:
        return self._facts.info(self.link.serial, {})

    def conditions(self) -> Conditions:
        return read_conditions(self.link.check(STATE_SCRIPT, "asking for its state"))

    def affinity(self, threads: int) -> tuple[int, ...] | None:
        """Return the cores of a tool: the fastest; None for all, and for the app."""
        return self._facts.big_cores(threads) if self._tools else None

    def open(self, job: Job) -> Timer:
        self._staging.make()
        if job.engine not in self._tools:
            assert self._app is not None, f"{job.engine} is not available"
            return AppTimer(self._staging, job, self._app)
        timer = ModelTimer if job.engine == "litert" else PerfTimer
        cores = self.affinity(job.threads)
        return timer(self._staging, job, self._tools[job.engine], cores)

    def close(self) -> None:
        if self._app is not None and self._staging.created:
            self._app.stop()
        self._staging.remove()


def _query(link: AdbLink, script: str) -> str:
    """Run a script with a short timeout, before anything is measured."""
    return link.check(script, "a question", timeout_s=min(QUERY_S, link.timeout_s))


def _runners(
    link: AdbLink, facts: AndroidFacts, options: DeviceOptions
) -> tuple[dict[str, Tool], App | None]:
    """Return the programs that run models there: tools if a folder is given, else the app.

    Raises ConfigError if there are none.
    """
    if options.tools is not None:
        return find_tools(options.tools, facts.abis), None
    app = App.find(link)
    if app is None:
        raise ConfigError(
            f"nothing on {link.serial} runs models: name a folder that holds "
            f"{' or '.join(PROGRAMS.values())} with --tools, or install the app, {_DOCS}"
        )
    return {}, app


def _listing(device: ListedDevice, options: DeviceOptions) -> DiscoveredDevice:
    spec, title = f"adb:{device.serial}", device.properties.get("model", "Android device")
    if device.obstacle is not None:
        return DiscoveredDevice(spec, title.replace("_", " "), reason=device.obstacle)
    try:
        link = AdbLink(find_adb(), device.serial, timeout_s=QUERY_S)
        facts = AndroidFacts.parse(_query(link, DESCRIBE_SCRIPT))
        title = facts.title or title
        tools, app = _runners(link, facts, options)
    except EdgeError as error:
        return DiscoveredDevice(spec, title, reason=str(error))
    engines: Sequence[str] = (*tools, *(() if app is None else app.engines))
    formats = tuple(name for name, form in FORMATS.items() if form.runtimes[0] in engines)
    return DiscoveredDevice(spec, title, formats)
