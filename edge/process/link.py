"""A child process that answers requests over two pipes.

The child's side and the message format are in `edge.process.wire`. The exceptions describe the
fault only; the caller knows the request and raises an EdgeError.
"""

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

from edge.errors import EdgeError
from edge.process.wire import Array, Arrays, Message, pack, unpack

_GRACE_S = 2.0
_CHUNK_BYTES = 1 << 16
_LINE_CHARACTERS = 300


class Refused(Exception):
    """The request failed in the child, with a one-line reason. The link remains usable."""


class NoAnswer(Exception):
    """The child did not reply in time, and was ended."""


class Ended(Exception):
    """The child ended, or closed its output, without a reply.

    code: the exit code; None when a signal ended it, or when it did not exit by itself.
    signal_name: the signal, such as "SIGSEGV". last_line: the last line on its stderr, or "".
    """

    def __init__(self, status: int | None, last_line: str = "") -> None:
        by_signal = status is not None and status < 0
        self.code = None if by_signal else status
        self.signal_name = (
            signal.Signals(-status).name if status is not None and by_signal else None
        )
        self.last_line = last_line
        super().__init__(f"ended with {self.signal_name or self.code}")


class Link:
    """A running child process. Close it, or use it in a `with` block; it ends with this process.

    argv: a command that runs `edge.process.wire.serve`. env: its environment, by default ours.
    Raises OSError when the command cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        # A file, not a pipe: a library with much output must not block on a full pipe.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=env,
                cwd=cwd,
                bufsize=0,
                # Ctrl-C must reach this process only, which then ends its children in order.
                start_new_session=True,
            )
        except BaseException:
            self._log.close()
            raise
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        # A write to a stopped process must meet its deadline, not block on a full pipe.
        os.set_blocking(self._input.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def closed(self) -> bool:
        """True once the child was ended by `close`, or by a time-out or crash in a request."""
        return self._log.closed

    def request(
        self, message: Message, arrays: Mapping[str, Array] | None = None, *, timeout_s: float
    ) -> tuple[Message, Arrays]:
        """Send a request and return the child's reply.

        Raises Refused, NoAnswer after `timeout_s` seconds, or Ended. If the wait ends before the
        reply, also by an interrupt, the child is ended too: a late reply would be read as that of
        the next request.
        """
        deadline = time.monotonic() + timeout_s
        data = pack(message, arrays)
        if self.closed:
            raise Ended(None)
        try:
            self._write(data, deadline)
            reply, outputs = unpack(lambda count: self._read(count, deadline))
        except TimeoutError:
            self.close(grace_s=0)
            raise NoAnswer from None
        except (EOFError, OSError):
            raise self._close_after_end() from None
        except BaseException:
            self.close(grace_s=0)
            raise
        if "error" in reply:
            raise Refused(_line(str(reply["error"])))
        return reply, outputs

    def close(self, *, grace_s: float = _GRACE_S) -> None:
        """End the child by closing its stdin, or kill it after `grace_s`. Safe to call twice."""
        try:
            for stream in (self._input, self._output):
                with contextlib.suppress(OSError):
                    stream.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        finally:
            # Also on a second Ctrl-C while waiting.
            self._process.kill()
            self._process.wait()
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
        self._wait(self._output.fileno(), selectors.EVENT_READ, deadline)
        return os.read(self._output.fileno(), count)

    @staticmethod
    def _wait(descriptor: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError

    def _close_after_end(self) -> Ended:
        """Close the link and return the error with exit status and last line on stderr."""
        try:
            status: int | None = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            last_line = self._last_line()
            self.close(grace_s=0)
        return Ended(status, last_line)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((_line(line) for line in reversed(lines) if line.strip()), "")


def explain(error: Exception) -> str:
    """Return the message of a failed request, for `edge.process.wire.serve`."""
    return (
        str(error)
        if isinstance(error, EdgeError)
        else f"unexpected {type(error).__name__}: {error}"
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:_LINE_CHARACTERS]
