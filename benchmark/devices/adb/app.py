"""Timer of the project's Android app: requests and replies are files, `am start` triggers it.

The contract is in docs/android.md. The messages are those of `benchmark.worker.worker`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.devices.adb.link import AdbLink, quoted
from benchmark.devices.adb.staging import QUERY_S, Staging
from benchmark.devices.base import Job
from benchmark.devices.messages import MessageTimer
from edge.errors import MeasurementError
from edge.process.wire import Array, Arrays, Message

PACKAGE = "org.edgeencoders.app"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
# A folder that the app can write and the shell can read.
_REPLIES = f"/sdcard/Android/media/{PACKAGE}/edge"
_PAUSE_S = 0.05
# Number of polls between two checks of the time and of the app's process.
_LOOK_EVERY = 10
_LATE, _ENDED = 98, 97
_REPLY = "edge-reply:"


@dataclass(frozen=True)
class App:
    """The app on a device. engines: name -> version of its engines."""

    link: AdbLink
    engines: Mapping[str, str | None]

    @classmethod
    def find(cls, link: AdbLink) -> App | None:
        """Return the app without starting it; None if it is not installed."""
        done = link.shell(
            f"pm path {PACKAGE} && dumpsys package {PACKAGE}",
            timeout_s=min(QUERY_S, link.timeout_s),
        )
        if not done.output.lstrip().startswith("package:"):
            return None
        version = re.search(r"versionName=(\S+)", done.output)
        return cls(link, _engines("" if version is None else version.group(1)))

    def stop(self) -> None:
        """End the app and remove its replies; do nothing if the device is gone."""
        with contextlib.suppress(MeasurementError):
            self.link.shell(
                f"am force-stop {PACKAGE}; rm -rf {_REPLIES}",
                timeout_s=min(QUERY_S, self.link.timeout_s),
            )

    def request(
        self, folder: str, message: Message, arrays: Mapping[str, Array]
    ) -> tuple[Message, Arrays]:
        """Return the app's reply. folder: on the device, for the request.

        Raises MeasurementError if the app does not start, ends, or takes too long.
        """
        name = f"{secrets.token_hex(8)}.json"
        request, reply = f"{folder}/{name}", f"{_REPLIES}/{name}"
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_text(dump(message, arrays), encoding="ascii")
            # The app is another user there.
            file.chmod(0o644)
            self.link.push([file], request)
        # A little less than adb's timeout, so that the error names the app.
        limit_s = max(1, int(self.link.timeout_s) - 2)
        done = self.link.shell(_script(request, reply, limit_s))
        if done.code == _LATE:
            raise MeasurementError(
                f"the app did not answer '{message['do']}' within {self.link.timeout_s:g} s: "
                f"unlock the screen of {self.link.serial}, and run the same command again"
            )
        if done.code == _ENDED:
            raise MeasurementError(
                f"the app ended on {self.link.serial} in the middle of '{message['do']}': "
                "adb logcat says why (out of memory? close other apps)"
            )
        _, marker, text = done.output.partition(_REPLY)
        if done.code != 0 or not marker:
            raise MeasurementError(f"the app did not start on {self.link.serial}: {done.last_line}")
        return load(text)


class AppTimer(MessageTimer):
    """A model in the app, in a session of its own."""

    def __init__(self, staging: Staging, job: Job, app: App) -> None:
        super().__init__(job)
        self._staging, self._app, self._session = staging, app, secrets.token_hex(8)
        self._closed = False

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        message = {**request, "session": self._session}
        reply, outputs = self._app.request(self._staging.folder, message, arrays or {})
        if "error" in reply:
            reason = " ".join(str(reply["error"]).split())[:300]
            raise MeasurementError(f"{self._job.label}: {reason}")
        return reply, outputs

    def place(self, path: Path) -> str:
        return self._staging.place(path)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(MeasurementError):
                self.ask({"do": "close"})


def dump(message: Message, arrays: Mapping[str, Array]) -> str:
    """Return a message as JSON: arrays are little-endian bytes in base64."""
    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    packed = {
        name: {
            "dtype": value.dtype.newbyteorder("<").str,
            "shape": list(value.shape),
            "data": base64.b64encode(value.astype(value.dtype.newbyteorder("<")).data).decode(),
        }
        for name, value in plain.items()
    }
    return json.dumps({"message": message, "arrays": packed})


def load(text: str) -> tuple[Message, Arrays]:
    """Parse a message of `dump`; raises MeasurementError for anything else."""
    try:
        value = json.loads(text)
        message, packed = dict(value["message"]), dict(value["arrays"])
        arrays = {name: _array(values) for name, values in packed.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(
            f"the app's reply cannot be read ({type(error).__name__}): install the app of this "
            "version"
        ) from None
    return message, arrays


def _array(packed: Mapping[str, Any]) -> Array:
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in "iuf":
        raise ValueError(f"an array of {dtype}, not of numbers")
    data = base64.b64decode(packed["data"], validate=True)
    return np.frombuffer(bytearray(data), dtype).reshape(packed["shape"])


def _script(request: str, reply: str, limit_s: int) -> str:
    """Return a script that starts the app and waits for the file `reply`, renamed when complete."""
    return (
        f"mkdir -p {quoted(_REPLIES)}\n"
        f"said=$(am start -W -n {ACTIVITY} --es request {quoted(request)} "
        f"--es reply {quoted(reply)} 2>&1)\n"
        'case "$said" in *Error*|*Exception*) echo "$said"; exit 1;; esac\n'
        f"n=0; start=$(date +%s)\nwhile [ ! -e {quoted(reply)} ]; do\n"
        f"  n=$((n + 1))\n  if [ $((n % {_LOOK_EVERY})) -eq 0 ]; then\n"
        f'    [ -z "$(pidof {PACKAGE})" ] && exit {_ENDED}\n'
        f"    [ $(($(date +%s) - start)) -ge {limit_s} ] && exit {_LATE}\n  fi\n"
        f"  sleep {_PAUSE_S:g}\ndone\n"
        f"echo {_REPLY}; cat {quoted(reply)}; rm -f {quoted(reply, request)}"
    )


def _engines(version: str) -> dict[str, str | None]:
    """Parse "0.1.0+litert-2.1.0+onnxruntime-1.23.0"; without engines, both of unknown version."""
    pairs = (part.partition("-") for part in version.split("+")[1:])
    versions: dict[str, str | None] = {name: number or None for name, _, number in pairs}
    return versions or {"onnxruntime": None, "litert": None}
