"""The user's `adb`: the list of devices, and shell, push and pull of one device."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import ConfigError, MeasurementError

# The first command starts adb's server, which looks for devices.
_LIST_S = 30.0
# Printed after every script, with its exit code; if it is missing, the connection broke.
_END = "edge-end:"
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_LINE_CHARACTERS = 300
_REMEDIES = {
    "unauthorized": "unlock its screen and accept 'Allow USB debugging?'",
    "authorizing": "unlock its screen and accept 'Allow USB debugging?'",
    "offline": "take its cable out and in again, or run: adb reconnect offline",
    "connecting": "wait a moment, or take its cable out and in again",
    "not permitted": "add your user to the group plugdev and install Android's udev rules",
    "bootloader": "start Android on it: fastboot reboot",
    "recovery": "start Android on it: adb reboot",
    "sideload": "start Android on it: adb reboot",
    "rescue": "start Android on it: adb reboot",
}


@dataclass(frozen=True)
class ListedDevice:
    """A line of `adb devices -l`. state: "device" if it can be used."""

    serial: str
    state: str
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def obstacle(self) -> str | None:
        """Reason for not using the device, with the remedy; None for a usable one."""
        if self.state == "device":
            return None
        remedy = _REMEDIES.get(self.state, "take its cable out and in again")
        return f"{self.serial} is {self.state}: {remedy}"


@dataclass(frozen=True)
class ShellResult:
    """Exit code and output of a script on the device."""

    code: int
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        """Last line that is not blank, of stderr if there is one, else of stdout."""
        lines = [*self.output.splitlines(), *self.errors.splitlines()]
        return next((_line(line) for line in reversed(lines) if line.strip()), "no message")


def find_adb() -> Path:
    """Return the adb on PATH, or of ANDROID_HOME; raises ConfigError, with the remedy."""
    path = shutil.which("adb")
    if path is not None:
        return Path(path)
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        program = Path(os.environ.get(name, "")) / "platform-tools" / "adb"
        if os.environ.get(name) and os.access(program, os.X_OK):
            return program
    raise ConfigError(
        "adb is not installed: install Android's platform-tools "
        "(https://developer.android.com/tools/releases/platform-tools, or apt install adb) and put "
        "adb on PATH, or set ANDROID_HOME"
    )


def list_devices(program: Path) -> list[ListedDevice]:
    """List the devices of `adb`; raises MeasurementError if its server does not answer."""
    try:
        done = subprocess.run(
            [program, "devices", "-l"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIST_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(
            f"adb did not answer within {_LIST_S:g} s: restart its server with adb kill-server"
        ) from None
    except OSError as error:
        raise MeasurementError(f"{program} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise MeasurementError(
            f"adb failed: {_last(done.stderr)}; restart its server with adb kill-server"
        )
    lines = done.stdout.splitlines()
    header = next((n for n, line in enumerate(lines) if line.startswith("List of devices")), -1)
    return [_parse_device(line) for line in lines[header + 1 :] if line.strip()]


def _parse_device(line: str) -> ListedDevice:
    serial, _, rest = line.partition(" ") if "\t" not in line else line.partition("\t")
    rest = rest.strip()
    if rest.startswith("no permissions"):
        return ListedDevice(serial, "not permitted")
    state, *others = rest.split()
    pairs = (word.partition(":") for word in others if ":" in word)
    return ListedDevice(serial, state, {key: value for key, _, value in pairs})


def select_device(program: Path, serial: str | None) -> ListedDevice:
    """Return the device of a serial, or the only one; raises ConfigError, with the remedy."""
    if serial is not None and not _SERIAL.fullmatch(serial):
        raise ConfigError(
            f"'{serial}' is no serial of a device: take one that adb devices lists, of letters, "
            "figures and . _ : -"
        )
    seen = list_devices(program)
    if not seen:
        raise ConfigError(
            "no Android device is attached: plug one in and allow USB debugging on it "
            "(Settings > Developer options), or run adb connect HOST:PORT"
        )
    names = ", ".join(device.serial for device in seen)
    if serial is None and len(seen) > 1:
        raise ConfigError(
            f"{len(seen)} Android devices are attached ({names}): name one, as in "
            f"--device adb:{seen[0].serial}"
        )
    chosen = next((device for device in seen if serial in (None, device.serial)), None)
    if chosen is None:
        raise ConfigError(f"no Android device {serial} is attached: choose from {names}")
    if chosen.obstacle is not None:
        raise ConfigError(f"the Android device {chosen.obstacle}")
    return chosen


class AdbLink:
    """One device. Every call ends within `timeout_s` seconds, or raises MeasurementError."""

    def __init__(self, program: Path, serial: str, *, timeout_s: float) -> None:
        self.program, self.serial, self.timeout_s = program, serial, timeout_s

    def shell(self, script: str, *, timeout_s: float | None = None) -> ShellResult:
        """Run a script in the device's shell; its exit code may be any.

        Raises MeasurementError if the device is gone, or does not answer in time.
        """
        # A subshell: `exit` in the script must not hide the end.
        code, output, errors = self._run(
            ["shell", f"(\n{script}\n)\necho {_END}$?"], timeout_s or self.timeout_s
        )
        body, marker, status = output.replace("\r\n", "\n").rpartition(_END)
        if not marker or not status.strip().isdigit():
            raise self._connection_error(errors or output, code)
        return ShellResult(int(status), body, errors)

    def check(self, script: str, action: str, *, timeout_s: float | None = None) -> str:
        """Return the output of a script; raises MeasurementError if it fails."""
        done = self.shell(script, timeout_s=timeout_s)
        if done.code != 0:
            raise MeasurementError(f"{action} failed on {self.serial}: {done.last_line}")
        return done.output

    def push(self, sources: Sequence[Path], target: str) -> None:
        """Copy files or folders to the device."""
        self._transfer("push", [*(str(source.absolute()) for source in sources), target], target)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file or folder from the device."""
        self._transfer("pull", [source, str(target)], source)

    def _transfer(self, verb: str, arguments: Sequence[str], where: str) -> None:
        code, output, errors = self._run([verb, *arguments], self.timeout_s)
        if code == 0:
            return
        text = f"{output}\n{errors}"
        if "No space left" in text:
            raise MeasurementError(
                f"not enough space on {self.serial} for {where}: free some, or time fewer "
                "artifacts with --format or --precision"
            )
        if self._state() == "device":
            raise MeasurementError(f"adb {verb} of {where} failed on {self.serial}: {_last(text)}")
        raise self._connection_error(text, code)

    def _state(self) -> str:
        return self._run(["get-state"], min(self.timeout_s, _LIST_S))[1].strip()

    def _run(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
        # Ctrl-C reaches this process only, which then clears the device up.
        process = subprocess.Popen(
            [self.program, "-s", self.serial, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"the device {self.serial} did not answer within {timeout_s:g} s: wake it up, and "
                "run the same command again"
            ) from None
        finally:
            # Not until the pipes end: a server that this call started may hold them.
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        return process.returncode, _text(output), _text(errors)

    def _connection_error(self, text: str, code: int) -> MeasurementError:
        reason = _last(text) if text.strip() else f"adb ended with exit code {code}"
        return MeasurementError(
            f"the device {self.serial} is gone ({reason}): attach it again, see adb devices, and "
            "run the same command again"
        )


def quoted(*words: str) -> str:
    """Quote words for a shell."""
    return " ".join(shlex.quote(word) for word in words)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return _line(lines[-1]) if lines else "no message"


def _line(text: str) -> str:
    return " ".join(text.split())[:_LINE_CHARACTERS]
