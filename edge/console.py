"""Console output of a command: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator

# Control characters, line separators, overrides of the writing direction, halves of a character,
# and what is drawn as nothing at all; the joiners of scripts and of emoji stay.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0001\U000e0020-\U000e007f]"
)
# Loggers whose warnings a user cannot act on: torch warns about the torchao that Transformers
# imports.
_NOISY_LOGGERS = ("torch.utils._pytree",)

_verbose = False
_silent = False


def set_verbose(verbose: bool) -> None:
    """Show the output of libraries and engines instead of holding it back."""
    global _verbose
    _verbose = verbose
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET if verbose else logging.ERROR)


def set_silent(silent: bool) -> None:
    """Print and draw nothing on stderr, because another process of the same run does."""
    global _silent
    _silent = silent


def is_terminal() -> bool:
    """Return True if progress on stderr may be drawn in place."""
    return sys.stderr.isatty() and not _silent


def printable(text: object) -> str:
    r"""Return a text as one line that neither steers a terminal nor hides what is beside it.

    Labels, file names and keys come from elsewhere: unprintable characters in them become
    `\x1b`, `\n` or `\u202e`. Everything printed or written into a report goes through here.
    """
    return _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], str(text))


def show(line: object) -> None:
    """Print one line of a result on stdout."""
    print(printable(line), flush=True)


def show_json(value: object) -> None:
    """Print one JSON document on stdout; unprintable characters in its strings are escaped."""
    for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
        print(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line))
    sys.stdout.flush()


def say(message: str) -> None:
    """Print one line on stderr, even while `hush` holds back the output of libraries."""
    if not _silent:
        _hush.say(printable(message))


def human_bytes(count: int) -> str:
    """Format a size in powers of 1000, with three significant digits."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 999.5:
            return f"{three_figures(size)} {unit}"
        size /= 1000
    return f"{three_figures(size)} GB"


def three_figures(value: float) -> str:
    """Format a number with three significant digits, trailing zeros included; 0 is "0".

    Scientific notation is used below 0.0001 only.
    """
    if value < 0:
        return f"-{three_figures(-value)}"
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.9995:
        return f"{value:.2f}"
    if value == 0:
        return "0"
    return f"{value:#.3g}" if value >= 9.995e-5 else f"{value:.2e}"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Report a long step: a spinner on a terminal, and a line with its duration at the end."""
    start = time.perf_counter()
    with clock(title):
        yield
    say(f"{title}: {time.perf_counter() - start:.1f} s")


@contextlib.contextmanager
def clock(title: str) -> Iterator[None]:
    """Show a spinner on a terminal while the block runs; nothing elsewhere."""
    if not is_terminal() or _verbose:
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    # A copy of the terminal's descriptor stays visible while `hush` redirects the original,
    # and the output of libraries must not be captured and shown above the spinner.
    with (
        os.fdopen(_hush.terminal(), "w") as terminal,
        Live(
            Spinner("dots", Text(printable(title))),
            console=Console(file=terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ),
    ):
        yield


class _Hush:
    """Redirect stdout and stderr of the process while at least one `hush` is open in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._redirections = contextlib.ExitStack()
        # A copy of the original stderr descriptor; None while nothing is redirected.
        self._visible: int | None = None

    def say(self, message: str) -> None:
        """Print a line on stderr, redirected or not."""
        # Under the lock: another thread may be about to redirect or restore the streams.
        with self._lock:
            if self._visible is None:
                print(message, file=sys.stderr, flush=True)
            else:
                os.write(self._visible, f"{message}\n".encode())

    def terminal(self) -> int:
        """Return a new descriptor of the original stderr."""
        with self._lock:
            return os.dup(sys.stderr.fileno() if self._visible is None else self._visible)

    def enter(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._redirect()

    def leave(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self._redirections.close()

    def _redirect(self) -> None:
        if _verbose:
            self._redirections.enter_context(_stdout_to_stderr())
            return
        # Copied before the redirection; closed after the original is restored.
        self._visible = os.dup(2)
        self._redirections.callback(self._close_visible)
        log = self._redirections.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._redirections.enter_context(_redirected((1, 2), log.fileno()))
        self._redirections.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")

    def _close_visible(self) -> None:
        assert self._visible is not None
        os.close(self._visible)
        self._visible = None


_hush = _Hush()


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Hold back what libraries print, from Python and from C; `--debug` lets it through to stderr.

    Both streams are redirected at the file descriptor: stdout is reserved for results, and
    converters and native runtimes write to it directly. May be nested, and used in threads.
    """
    _hush.enter()
    try:
        yield
    finally:
        _hush.leave()


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    with _redirected((1,), 2):
        yield


@contextlib.contextmanager
def _redirected(descriptors: tuple[int, ...], destination: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
    try:
        for descriptor in descriptors:
            os.dup2(destination, descriptor)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)
