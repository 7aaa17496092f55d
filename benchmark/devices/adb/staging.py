"""The folder of a run on an Android device: files are pushed once, and removed at the end."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from benchmark.devices.adb.link import AdbLink, quoted
from benchmark.devices.adb.tools import Tool
from edge.console import human_bytes, say
from edge.errors import MeasurementError
from edge.storage import sha256, size_bytes

# A folder in which the shell can write and run programs, and apps can read.
_ROOT = "/data/local/tmp"
# Timeout of commands outside of the measurement.
QUERY_S = 30.0
# Free space beyond the pushed files, for results and for Android itself.
_SPARE_BYTES = 16_000_000


class Staging:
    """A folder on a device. folder: its path there. created: True once it exists.

    Raises MeasurementError if the device has no space, or files arrive altered.
    """

    def __init__(self, link: AdbLink) -> None:
        self.link, self.folder = link, f"{_ROOT}/edge-{secrets.token_hex(6)}"
        self._placed: dict[str, str] = {}
        self._jobs = 0
        self.created = False

    def make(self) -> None:
        """Create the folder if it does not exist."""
        if not self.created:
            self.created = True
            # Apps read its files.
            folder = quoted(self.folder)
            self.link.check(f"mkdir -p {folder} && chmod 755 {folder}", "making a folder")

    def job_folder(self) -> str:
        """Create a folder for one more job; return its path."""
        self._jobs += 1
        folder = f"{self.folder}/job-{self._jobs}"
        self.link.check(f"mkdir -p {quoted(folder)}", "making a folder")
        return folder

    def place(self, path: Path) -> str:
        """Push a file of this machine once; return its path on the device."""
        digest = sha256(path)
        if digest not in self._placed:
            target = f"{self.folder}/{digest[:16]}{path.suffix}"
            self._check_space(size_bytes(path), path.name)
            self.link.push([path], target)
            self._check_copy(target, digest, path.name)
            self._placed[digest] = target
        return self._placed[digest]

    def place_tool(self, tool: Tool) -> str:
        """Push a tool and its libraries once, as programs; return the tool's path on the device."""
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

    def remove_job_folder(self, folder: str) -> None:
        """End a process that runs in a folder and remove it; do nothing if the device is gone."""
        name = quoted(folder)
        script = f"[ -f {name}/pid ] && kill -9 $(cat {name}/pid); rm -rf {name}"
        with contextlib.suppress(MeasurementError):
            self.link.shell(script, timeout_s=self._query_s)

    def remove(self) -> None:
        """Remove everything; report the remaining folder if the device is gone."""
        if not self.created:
            return
        self.created = False
        try:
            script = f"rm -rf {quoted(self.folder)}"
            self.link.check(script, "clearing up", timeout_s=self._query_s)
        except MeasurementError:
            say(f"{self.link.serial} cannot be reached: {self.folder} is left on it")

    @property
    def _query_s(self) -> float:
        return min(QUERY_S, self.link.timeout_s)

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
