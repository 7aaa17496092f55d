"""Interruptions: what Ctrl-C, SIGTERM and SIGHUP do, from the first moment of a command.

Nothing but the standard library is imported here, for this is in place before anything else is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_LINES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated: the terminal was closed",
}
_IMPORTS = "<frozen importlib._bootstrap>"
_RETRY_S = 0.05
# So many signals end the process at once, whatever it is doing.
_PATIENCE = 3

T = TypeVar("T")

_received: list[int] = []
# A copy of stderr as the command began: one that is interrupted while it holds back what libraries
# print may leave the stream itself redirected.
_stderr = 2


def install() -> None:
    """Turn the signals into KeyboardInterrupt, so that every command cleans up after itself."""
    global _stderr
    with contextlib.suppress(OSError):
        _stderr = os.dup(2)
    for number in _LINES:
        # Who starts a command with a signal ignored (nohup, a shell's `&`) means it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _retry)
    sys.unraisablehook = _unraisable


def finish() -> None:
    """Ignore further signals: the command has ended, and its exit code is decided."""
    for number in (*_LINES, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    # Python ends itself by SIGINT, whatever the exit code, when the last code that it ran from a
    # string (as dataclasses do) was interrupted; other code from a string makes it forget that.
    exec("")


def interruptible(work: Callable[[], T], otherwise: T) -> T:
    """Return what `work` returns, or `otherwise` when a signal interrupts it.

    Signals raise KeyboardInterrupt nowhere else: what comes just before or after waits, and cannot
    escape as a traceback.
    """
    try:
        return _inside(work)
    except KeyboardInterrupt:
        return otherwise


def received() -> int | None:
    """Number of the first signal that was received, or None."""
    return _received[0] if _received else None


def tell(number: int) -> None:
    """Print the one line about a signal, whatever stderr leads to by now."""
    # RuntimeError: a signal may have come while the stream was being written.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(_stderr, f"edge: {_LINES[signal.Signals(number)]}\n".encode())


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) >= _PATIENCE:
        tell(_received[0])
        os._exit(128 + _received[0])
    _raise(frame)


def _retry(number: int, frame: FrameType | None) -> None:
    _raise(frame)


def _raise(frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, later outside `interruptible` or where a module is being imported.

    Half-imported libraries answer an interruption with errors of their own, some not at all.
    """
    if not _may_raise(frame):
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    raise KeyboardInterrupt


def _inside(work: Callable[[], T]) -> T:
    return work()


def _may_raise(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _IMPORTS:
        if frame.f_code is _inside.__code__:
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: Any) -> None:
    """Raise an interruption again that came where none can be raised, as in a destructor."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt) and _received:
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    sys.__unraisablehook__(unraisable)
