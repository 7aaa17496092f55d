"""A worker process and the two pipes that lead to it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import Self

from benchmark.wire import Array, Message, pack, unpack
from edge.errors import MeasurementError

_GRACE_S = 2.0
_CHUNK_BYTES = 1 << 16


class Link:
    """A running worker. Close it, or use it in a `with` block; it never outlives this process.

    label: what messages call it. Every request has a time limit.
    """

    def __init__(
        self, argv: Sequence[str], *, label: str, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.label = label
        # A file, not a pipe: a library that prints a lot must not block on a full one.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            # Ctrl-C reaches this process only, which then ends its workers in order.
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(
        self, message: Message, arrays: Mapping[str, Array] | None = None, *, timeout_s: float
    ) -> Message:
        """The worker's reply.

        Raises MeasurementError, one line, when the worker reports a failure, dies, or takes
        longer than `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self._write(pack(message, arrays), deadline)
            reply, _ = unpack(lambda count: self._read(count, deadline))
        except TimeoutError:
            self.close(grace_s=0)
            raise MeasurementError(
                f"{self.label}: no answer to '{message['do']}' within {timeout_s:g} s; "
                "the worker process was ended"
            ) from None
        except (EOFError, BrokenPipeError):
            raise MeasurementError(self._obituary()) from None
        if "error" in reply:
            raise MeasurementError(f"{self.label}: {_line(str(reply['error']))}")
        return reply

    def close(self, *, grace_s: float = _GRACE_S) -> None:
        """End the worker: by closing its stdin, by force when it lingers. Safe to call twice."""
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        except BaseException:
            # A second Ctrl-C while waiting: still leave no process behind.
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._input.fileno(), selectors.EVENT_WRITE, deadline)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._input.fileno(), view[:_CHUNK_BYTES]) :]

    def _read(self, count: int, deadline: float) -> bytes:
        parts = []
        while count:
            self._wait(self._output.fileno(), selectors.EVENT_READ, deadline)
            part = os.read(self._output.fileno(), count)
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    @staticmethod
    def _wait(descriptor: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError

    def _obituary(self) -> str:
        """Why the worker is gone, with the last line that it wrote to stderr."""
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return f"{self.label}: the worker process closed its output without an answer"
        if code < 0:
            cause = f"was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                cause += " (out of memory? close other programs, or time fewer artifacts at once)"
        else:
            cause = f"ended with exit code {code}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{self.label}: the worker process {cause}" + (f": {_line(last)}" if last else "")


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
