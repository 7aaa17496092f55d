"""Message exchange between a page and the measurement: one page and one request at a time.

The server's threads call one side of it, the measurement the other.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, ValidationError

from edge.config import Config
from edge.process.wire import Array, Arrays, Message, pack, unpack

# Browsers let a hidden page run only once a minute; a left page is reloaded soon, or never.
GONE_S = 75.0
_RELOAD_S = 25.0
Validator = Callable[[Message, Arrays], None]
ReplyStatus = Literal["accepted", "stale", "refused"]


class PageReopened(Exception):
    """The page was opened again: its loaded models are lost."""


class PageGone(Exception):
    """The page sent no request for too long."""


class NoAnswer(Exception):
    """The page is connected, but did not reply in time."""


class InvalidReply(Exception):
    """The page's reply is invalid; message: the reason, one line."""


class PageInfo(Config):
    """The page's description of its device; see `apps/web/src/device.ts`."""

    user_agent: str = Field(max_length=1000)
    brands: tuple[str, ...] = Field(default=(), max_length=20)
    platform: str | None = Field(default=None, max_length=200)
    platform_version: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200)
    architecture: str | None = Field(default=None, max_length=200)
    cores: int | None = Field(default=None, ge=1, le=100_000)
    memory_gb: float | None = Field(default=None, gt=0, le=100_000)
    isolated: bool
    secure: bool
    clock_us: float = Field(ge=0, le=1e9)
    webgpu: str | None = Field(default=None, max_length=400)

    @property
    def identity(self) -> tuple[object, ...]:
        """Properties that stay the same each time one browser opens the page."""
        return (self.user_agent, self.model, self.architecture, self.cores, self.isolated)


class Battery(Config):
    """level: 0 to 1."""

    level: float = Field(ge=0, le=1)
    charging: bool


class PageState(Config):
    """The state that a page sends every few seconds."""

    hidden: bool
    battery: Battery | None


class _Claim(Config):
    page: str = Field(min_length=16, max_length=64)
    info: PageInfo


class _Reply(Config):
    """A reply of a page. artifact: SHA-256 of the file that was run."""

    number: int
    artifact: str = Field(max_length=64)
    reply: dict[str, Any]


@dataclass
class _Pending:
    number: int
    data: bytes
    artifact: str
    validate: Validator
    outcome: tuple[Message, Arrays] | Exception | None = None


@dataclass
class _Page:
    """A page. name: of its tab, kept on a reload. key: of this opening. closed: by the user."""

    name: str
    info: PageInfo
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    closed: bool = False


class Exchange:
    """The active page, and the request that it has not answered yet.

    gone_s: seconds without a request after which a page counts as gone. Once a page has replied,
    only the same browser can replace it: figures of two devices must not be mixed.
    """

    def __init__(self, *, gone_s: float = GONE_S) -> None:
        self._gone_s = gone_s
        self._changed = threading.Condition()
        self._page: _Page | None = None
        self._pending: _Pending | None = None
        self._number = 0
        self._last_contact = 0.0
        self._closed = False
        self._accepted_info: PageInfo | None = None
        self.openings = 0
        self.page_state = PageState(hidden=False, battery=None)

    # Methods for the measurement.

    @property
    def info(self) -> PageInfo | None:
        """Device of the last page; None before any was opened."""
        return None if self._page is None else self._page.info

    @property
    def key(self) -> str:
        """Key of the active page, a new one each time it is opened; "" before any was."""
        return "" if self._page is None else self._page.key

    def wait(self, timeout_s: float) -> bool:
        """Wait for a page at most so many seconds; return True if there is one."""
        with self._changed:
            return self._changed.wait_for(lambda: self._page is not None, timeout_s)

    def ask(
        self,
        message: Message,
        arrays: Mapping[str, Array] | None = None,
        *,
        artifact: str = "",
        validate: Validator,
        timeout_s: float,
        key: str | None = None,
    ) -> tuple[Message, Arrays]:
        """Send a request, return the page's reply.

        artifact: the checksum that the reply must state. validate: raises ValueError for an
        invalid reply to this request. key: of the page to ask, the active one by default.
        Raises PageReopened, PageGone, NoAnswer or InvalidReply.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if key is not None and key != self.key:
                raise PageReopened
            self._number += 1
            data = pack({**message, "number": self._number}, arrays)
            pending = _Pending(self._number, data, artifact, validate)
            self._pending = pending
            self._changed.notify_all()
            try:
                return self._outcome(pending, deadline)
            finally:
                self._pending = None

    def close(self) -> None:
        """Answer every waiting page."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # Methods for the page's requests.

    def claim(self, body: bytes) -> str:
        """Make a page the active one; return its key.

        Raises PermissionError while another page is active, ValueError for an invalid body.
        """
        claim = _parsed(_Claim, body)
        with self._changed:
            if self._page is not None and not self._may_replace(self._page, claim.page):
                raise PermissionError("this benchmark is open in another browser or tab")
            if (
                self._accepted_info is not None
                and self._accepted_info.identity != claim.info.identity
            ):
                raise PermissionError("this benchmark was started in another browser")
            self._page = _Page(claim.page, claim.info)
            self._last_contact = time.monotonic()
            self.openings += 1
            if self._pending is not None:
                self._pending.outcome = PageReopened()
            self._changed.notify_all()
            return self._page.key

    def next(self, key: str, wait_s: float) -> bytes | None:
        """Return the pending request, None if none comes in so many seconds.

        A page that asks again gets the same request: its connection may have broken.
        Raises PermissionError for a page that is not the active one.
        """
        with self._changed:
            self._touch(key)
            self._changed.wait_for(
                lambda: self._closed or self._unanswered is not None or self.key != key, wait_s
            )
            self._touch(key)
            return None if self._unanswered is None else self._unanswered.data

    def check(self, key: str) -> None:
        """Check a page's key before its body is read; PermissionError as `next`."""
        with self._changed:
            self._touch(key)

    def reply(self, key: str, body: bytes) -> tuple[ReplyStatus, str]:
        """Take a reply; return its status and a reason of refusal; PermissionError as `next`."""
        with self._changed:
            self._touch(key)
            pending = self._pending
        try:
            message, arrays = _unpacked(body)
            answer = _Reply.model_validate(message)
        except (ValueError, EOFError) as error:
            return self._refuse(pending, f"it is not a reply ({_first_line(error)})")
        if pending is None or answer.number != pending.number:
            return "stale", "no request waits for this reply"
        if "error" not in answer.reply:
            if not _same(answer.artifact, pending.artifact):
                return self._refuse(pending, "it is of another file than the one that was sent")
            try:
                pending.validate(answer.reply, arrays)
            except ValueError as error:
                return self._refuse(pending, _first_line(error))
        self._settle(pending, (answer.reply, arrays))
        self._accepted_info = self._accepted_info or self.info
        return "accepted", ""

    def record_state(self, key: str, body: bytes) -> None:
        """Record the page's state; PermissionError as `next`, ValueError as `claim`."""
        with self._changed:
            self._touch(key)
            self.page_state = _parsed(PageState, body)

    def leave(self, key: str) -> bool:
        """Mark a page as closed, so that another may replace it; True for the active page."""
        with self._changed:
            if self._page is None or not _same(self._page.key, key):
                return False
            self._page.closed = True
            self._changed.notify_all()
            return True

    @property
    def _unanswered(self) -> _Pending | None:
        pending = self._pending
        return pending if pending is not None and pending.outcome is None else None

    def _outcome(self, pending: _Pending, deadline: float) -> tuple[Message, Arrays]:
        while pending.outcome is None:
            now, gone = time.monotonic(), self._last_contact + self._gone_after_s
            if now >= gone:
                raise PageGone
            if now >= deadline:
                raise NoAnswer
            self._changed.wait(min(deadline, gone) - now)
        if isinstance(pending.outcome, Exception):
            raise pending.outcome
        return pending.outcome

    @property
    def _gone_after_s(self) -> float:
        closed = self._page is not None and self._page.closed
        return min(self._gone_s, _RELOAD_S) if closed else self._gone_s

    def _may_replace(self, page: _Page, name: str) -> bool:
        silent = time.monotonic() >= self._last_contact + self._gone_s
        return page.closed or silent or _same(page.name, name)

    def _touch(self, key: str) -> None:
        if self._page is None or not _same(self._page.key, key):
            raise PermissionError("another page is at work")
        self._page.closed = False
        self._last_contact = time.monotonic()

    def _refuse(self, pending: _Pending | None, reason: str) -> tuple[ReplyStatus, str]:
        if pending is not None:
            self._settle(pending, InvalidReply(reason))
        return "refused", reason

    def _settle(self, pending: _Pending, outcome: tuple[Message, Arrays] | Exception) -> None:
        with self._changed:
            if pending.outcome is None:
                pending.outcome = outcome
            self._changed.notify_all()


def _same(expected: str, actual: str) -> bool:
    """Compare two texts in constant time."""
    return secrets.compare_digest(
        expected.encode("utf-8", "surrogatepass"), actual.encode("utf-8", "surrogatepass")
    )


def _parsed(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise ValueError(_first_line(error)) from None


def _unpacked(body: bytes) -> tuple[Message, Arrays]:
    """Unpack exactly one message."""
    stream = io.BytesIO(body)
    try:
        message, arrays = unpack(stream.read)
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if stream.read(1):
        raise ValueError("bytes follow the message")
    return message, arrays


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        return f"{place}: {problem['msg']}"[:200]
    return " ".join(str(error).split())[:200] or type(error).__name__
