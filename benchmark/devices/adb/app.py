"""The project's Android app as a timer: requests and replies are files, `am start` rings the bell.

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
from benchmark.devices.adb.staging import QUESTION_S, Staging
from benchmark.devices.base import Job
from benchmark.devices.messages import MessageTimer
from edge.errors import MeasurementError
from edge.process.wire import Array, Arrays, Message

PACKAGE = "org.edgeencoders.app"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
# Where the app may write and the shell may read.
_REPLIES = f"/sdcard/Android/media/{PACKAGE}/edge"
_PAUSE_S = 0.05
# Pauses between two looks at the clock, and whether the app is still there.
_LOOK_EVERY = 10
_LATE, _ENDED = 98, 97
_REPLY = "edge-reply:"


@dataclass(frozen=True)
class App:
    """The app on a device. engines: name -> version of each that it holds."""

    link: AdbLink
    engines: Mapping[str, str | None]

    @classmethod
    def find(cls, link: AdbLink) -> App | None:
        """The app, where it is installed; it is not started."""
        done = link.shell(
            f"pm path {PACKAGE} && dumpsys package {PACKAGE}",
            timeout_s=min(QUESTION_S, link.timeout_s),
        )
        if not done.output.lstrip().startswith("package:"):
            return None
        version = re.search(r"versionName=(\S+)", done.output)
        return cls(link, _engines("" if version is None else version.group(1)))

    def stop(self) -> None:
        """End the app and remove its replies; in silence when the device is gone."""
        with contextlib.suppress(MeasurementError):
            self.link.shell(
                f"am force-stop {PACKAGE}; rm -rf {_REPLIES}",
                timeout_s=min(QUESTION_S, self.link.timeout_s),
            )

    def request(
        self, folder: str, message: Message, arrays: Mapping[str, Array]
    ) -> tuple[Message, Arrays]:
        """The app's reply. folder: on the device, for the request.

        Raises MeasurementError when the app does not start, ends, or takes too long.
        """
        name = f"{secrets.token_hex(8)}.json"
        request, reply = f"{folder}/{name}", f"{_REPLIES}/{name}"
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_text(dump(message, arrays), encoding="ascii")
            # The app is another user there.
            file.chmod(0o644)
            self.link.push([file], request)
        # A little less than the wait for adb itself, so that it is the app that is blamed.
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
        _, found, text = done.output.partition(_REPLY)
        if done.code != 0 or not found:
            raise MeasurementError(f"the app did not start on {self.link.serial}: {done.last_line}")
        return load(text)


class AppTimer(MessageTimer):
    """A model in the app, which keeps one session for each."""

    def __init__(self, staging: Staging, job: Job, app: App) -> None:
        super().__init__(job)
        self._staging, self._app, self._session = staging, app, secrets.token_hex(8)
        self._closed = False

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        message = {**request, "session": self._session}
        reply, found = self._app.request(self._staging.folder, message, arrays or {})
        if "error" in reply:
            reason = " ".join(str(reply["error"]).split())[:300]
            raise MeasurementError(f"{self._job.label}: {reason}")
        return reply, found

    def place(self, path: Path) -> str:
        return self._staging.place(path)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(MeasurementError):
                self.ask({"do": "close"})


def dump(message: Message, arrays: Mapping[str, Array]) -> str:
    """A message as JSON: arrays are little-endian bytes in base64."""
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
    """What `dump` wrote; raises MeasurementError for anything else."""
    try:
        value = json.loads(text)
        message, packed = dict(value["message"]), dict(value["arrays"])
        arrays = {name: _array(one) for name, one in packed.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(
            f"the app's reply cannot be read ({type(error).__name__}): install the app of this "
            "version"
        ) from None
    return message, arrays


def _array(packed: Mapping[str, Any]) -> Array:
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in "iuf":
        raise ValueError(f"no array of numbers: {dtype}")
    data = base64.b64decode(packed["data"], validate=True)
    return np.frombuffer(bytearray(data), dtype).reshape(packed["shape"])


def _script(request: str, reply: str, limit_s: int) -> str:
    """Start the app, and wait for the file that it renames to `reply` when it is whole."""
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
    """Of "0.1.0+litert-2.1.0+onnxruntime-1.23.0"; without them, both of unknown version."""
    pairs = (part.partition("-") for part in version.split("+")[1:])
    found: dict[str, str | None] = {name: number or None for name, _, number in pairs}
    return found or {"onnxruntime": None, "litert": None}
