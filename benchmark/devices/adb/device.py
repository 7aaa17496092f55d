"""`adb:SERIAL`: an Android device, reached with the user's own `adb`."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from benchmark.config import DeviceOptions
from benchmark.devices.adb.app import App, AppTimer
from benchmark.devices.adb.facts import (
    DESCRIBE_SCRIPT,
    STATE_SCRIPT,
    AndroidFacts,
    read_conditions,
)
from benchmark.devices.adb.link import AdbLink, Attached, attached, choose, find_adb, quoted
from benchmark.devices.adb.litert import ModelTimer
from benchmark.devices.adb.onnxruntime import PerfTimer
from benchmark.devices.adb.tool_timer import PROGRAMS, Tool, find_tools
from benchmark.devices.base import Device, Found, Job, Timer
from benchmark.schema import Conditions, DeviceInfo
from edge.console import human_bytes, say
from edge.engines.base import Availability
from edge.errors import ConfigError, EdgeError, MeasurementError
from edge.formats import FORMATS
from edge.storage import sha256, size_bytes

# Where the shell may write and run programs, and apps may read.
_ROOT = "/data/local/tmp"
# A question about the device itself, no measurement.
_QUESTION_S = 30.0
# Left free beside what is pushed: results, and what Android itself needs.
_SPARE_BYTES = 16_000_000
_DOCS = "see docs/android.md"
_NONE = "none is attached: connect one on which USB debugging is allowed (docs/android.md)"


class AdbDevice(Device):
    """One Android device, and a folder of this run on it.

    Raises ConfigError, one line, for whatever keeps it from being used.
    """

    kind = "adb"

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        program = find_adb()
        self.address = choose(program, address).serial
        self.link = AdbLink(program, self.address, timeout_s=options.timeout_s)
        self._facts = AndroidFacts.parse(_ask(self.link, DESCRIBE_SCRIPT))
        self._tools, self._app = _means(self.link, self._facts, options)
        self._titles = {engine: tool.title for engine, tool in self._tools.items()}
        self.folder = f"{_ROOT}/edge-{secrets.token_hex(6)}"
        self._placed: dict[str, str] = {}
        self._jobs = 0
        self._made = False

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[Found]:
        """Every device that adb sees; nothing is pushed to any."""
        try:
            seen = attached(find_adb())
        except EdgeError as error:
            return [Found(cls.kind, "Android devices", reason=str(error))]
        if not seen:
            return [Found(cls.kind, "Android devices", reason=_NONE)]
        return [_found(one, options) for one in seen]

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
        """The cores that a tool is kept on: the fastest; None for all, and for the app."""
        return self._facts.big_cores(threads) if self._tools else None

    def open(self, job: Job) -> Timer:
        self._make()
        if job.engine not in self._tools:
            assert self._app is not None, f"{job.engine} is not available"
            return AppTimer(self, job, self._app)
        self._jobs += 1
        folder = f"{self.folder}/job-{self._jobs}"
        self.link.check(f"mkdir -p {quoted(folder)}", "making a folder")
        timer = ModelTimer if job.engine == "litert" else PerfTimer
        return timer(self, job, self._tools[job.engine], folder)

    def place(self, path: Path) -> str:
        """A file of this machine on the device, pushed once however often it is used."""
        digest = sha256(path)
        if digest not in self._placed:
            target = f"{self.folder}/{digest[:16]}{path.suffix}"
            self._check_space(size_bytes(path), path.name)
            self.link.push([path], target)
            self._check_copy(target, digest, path.name)
            self._placed[digest] = target
        return self._placed[digest]

    def place_tool(self, tool: Tool) -> str:
        """A tool and the libraries beside it, in a folder of their own, ready to be started."""
        key, target = f"tool {tool.engine}", f"{self.folder}/tools/{tool.path.name}"
        if key not in self._placed:
            files = [tool.path, *tool.libraries]
            self._check_space(sum(size_bytes(file) for file in files), tool.path.name)
            folder = quoted(f"{self.folder}/tools")
            self.link.check(f"mkdir -p {folder}", "making a folder")
            self.link.push(files, f"{self.folder}/tools/")
            self.link.check(f"chmod 755 {quoted(target)}", "making the tool a program")
            self._placed[key] = target
        return self._placed[key]

    def take_away(self, folder: str) -> None:
        """End what still runs in a folder and remove it; in silence when the device is gone."""
        name = quoted(folder)
        script = f"[ -f {name}/pid ] && kill -9 $(cat {name}/pid); rm -rf {name}"
        with contextlib.suppress(MeasurementError):
            self.link.shell(script, timeout_s=self._question_s)

    def close(self) -> None:
        if not self._made:
            return
        self._made = False
        if self._app is not None:
            self._app.stop()
        try:
            script = f"rm -rf {quoted(self.folder)}"
            self.link.check(script, "clearing up", timeout_s=self._question_s)
        except MeasurementError:
            say(f"{self.link.serial} cannot be reached: {self.folder} is left on it")

    @property
    def _question_s(self) -> float:
        return min(_QUESTION_S, self.link.timeout_s)

    def _make(self) -> None:
        if not self._made:
            self._made = True
            # Apps read what lies there.
            folder = quoted(self.folder)
            self.link.check(f"mkdir -p {folder} && chmod 755 {folder}", "making a folder")

    def _check_space(self, wanted_bytes: int, name: str) -> None:
        output = self.link.check(f"df -k -P {_ROOT}", "asking for free space")
        words = output.splitlines()[-1].split()
        if len(words) < 4 or not words[-3].isdigit():
            return
        free_bytes = int(words[-3]) * 1024
        if free_bytes < wanted_bytes + _SPARE_BYTES:
            raise MeasurementError(
                f"not enough space on {self.link.serial} for {name}: {human_bytes(free_bytes)} "
                f"free in {_ROOT}, {human_bytes(wanted_bytes + _SPARE_BYTES)} wanted; free some, "
                "or time fewer artifacts with --format or --precision"
            )

    def _check_copy(self, target: str, digest: str, name: str) -> None:
        # The app, another user there, reads it too.
        done = self.link.shell(f"chmod 644 {quoted(target)}; sha256sum {quoted(target)}")
        # An old system may lack the program.
        if done.code == 0 and done.output.split()[:1] != [digest]:
            raise MeasurementError(
                f"{name} arrived altered on {self.link.serial}: try another cable or port"
            )


def _ask(link: AdbLink, script: str) -> str:
    """A question before anything is measured, so that a silent device is found out soon."""
    return link.check(script, "a question", timeout_s=min(_QUESTION_S, link.timeout_s))


def _means(
    link: AdbLink, facts: AndroidFacts, options: DeviceOptions
) -> tuple[dict[str, Tool], App | None]:
    """What can run models there: tools when a folder is named, else the app.

    Raises ConfigError when there is nothing.
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


def _found(one: Attached, options: DeviceOptions) -> Found:
    spec, title = f"adb:{one.serial}", one.properties.get("model", "Android device")
    if one.obstacle is not None:
        return Found(spec, title.replace("_", " "), reason=one.obstacle)
    try:
        link = AdbLink(find_adb(), one.serial, timeout_s=_QUESTION_S)
        facts = AndroidFacts.parse(_ask(link, DESCRIBE_SCRIPT))
        title = facts.title or title
        tools, app = _means(link, facts, options)
    except EdgeError as error:
        return Found(spec, title, reason=str(error))
    engines: Sequence[str] = (*tools, *(() if app is None else app.engines))
    formats = tuple(name for name, form in FORMATS.items() if form.runtimes[0] in engines)
    return Found(spec, title, formats)
