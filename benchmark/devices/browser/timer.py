"""Timer of a model in a web worker of the page, with the requests of `benchmark.worker.worker`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from benchmark.config import Block, Protocol
from benchmark.devices.base import Job, Loaded, ModelRefused, StageTimes, Turn, Warmed
from benchmark.devices.browser.exchange import (
    Exchange,
    InvalidReply,
    NoAnswer,
    PageGone,
    PageReopened,
)
from benchmark.devices.browser.replies import (
    ANSWERS,
    LoadedAnswer,
    MemoryAnswer,
    TurnedAnswer,
    WarmedAnswer,
    reply_validator,
    validate_outputs,
)
from benchmark.devices.messages import MessageTimer
from benchmark.schema import Memory, Operator
from edge.console import say
from edge.errors import MeasurementError
from edge.process.wire import Array, Arrays, Message, joined
from edge.storage import sha256

# Number of times that a page may be opened during one request.
_OPENINGS = 5
# Browsers' names of WebGPU adapters that run on the processor.
_SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "software", "basic render")


@dataclass(frozen=True)
class PageSession:
    """State that all models of a page share.

    files: checksum -> file that the page may fetch. ended: models that the page can unload, sent
    with the next request. timeout_s: of a reply.
    """

    exchange: Exchange
    files: dict[str, Path]
    timeout_s: float
    ended: list[str] = field(default_factory=list)


class BrowserTimer(MessageTimer):
    """One model in a worker of the page; loaded again when the page is opened again."""

    # Outputs of a large vocabulary still fit into one answer.
    feeds_per_message: ClassVar[int] = 8

    def __init__(self, job: Job, session: PageSession, cell: str) -> None:
        super().__init__(job)
        self._session, self._cell = session, cell
        self._artifact = Path(self.place(job.path)).name
        self._key = ""
        self._first_loaded: Loaded | None = None
        self._threads = job.threads
        self._protocol: Protocol | None = None
        self._raw_ns: list[int] = []
        self._turns = 0

    def place(self, path: Path) -> str:
        """Return the path from which the page fetches a file, with the checksum to verify."""
        digest = _checksum(path.resolve())
        self._session.files[digest] = path.resolve()
        return f"files/{digest}"

    def load(self) -> Loaded:
        # A phone that runs out of memory reloads the page while it loads a model.
        for attempt, threads in enumerate((self._job.threads, 1, 1)):
            self._threads = threads
            with contextlib.suppress(PageReopened):
                self._first_loaded = self._load(fewer=attempt > 0)
                return self._first_loaded
            self._say_reopened()
        raise ModelRefused(
            "the page was lost three times while it loaded the model: the device may have too "
            "little memory for it"
        )

    def _load(self, *, fewer: bool = False) -> Loaded:
        request = {
            "do": "load",
            "label": self._job.label,
            "engine": self._job.engine,
            "path": f"files/{self._artifact}",
            "sha256": self._artifact,
            "bytes": self._job.path.stat().st_size,
            "threads": self._threads,
            "recorded": {"turns": self._turns, "raw_ns": self._raw_ns},
        }
        feeds = joined(self._job.feeds)
        key = self._session.exchange.key
        reply, _ = self._send(request, feeds, validate=reply_validator(LoadedAnswer), key=key)
        self._key = key
        answer = LoadedAnswer.model_validate(reply)
        notes = answer.notes
        if fewer and self._job.threads > 1:
            notes = (*notes, "lost the page while it loaded with more threads, so it ran on one")
        return Loaded(
            load_ms=answer.load_ns / 1e6,
            first_ms=answer.first_ns / 1e6,
            threads=answer.threads,
            provider=answer.provider,
            notes=tuple(
                f"in the browser it {note}" for note in (*notes, *self._software_notes(answer))
            ),
        )

    def _software_notes(self, answer: LoadedAnswer) -> tuple[str, ...]:
        """Return a note if the browser runs WebGPU on the processor."""
        info = self._session.exchange.info
        adapter = "" if info is None or answer.provider != "WebGPU" else info.webgpu or ""
        if not any(word in adapter.lower() for word in _SOFTWARE):
            return ()
        return (f"ran WebGPU in software ({adapter}), on no GPU",)

    def warm_request(self, protocol: Protocol) -> Message:
        # The page shows how many rounds are to come.
        return {**super().warm_request(protocol), "rounds": protocol.rounds}

    def warm(self, protocol: Protocol) -> Warmed:
        self._protocol = protocol
        reply, _ = self.ask(self.warm_request(protocol))
        answer = WarmedAnswer.model_validate(reply)
        notes: tuple[str, ...] = ()
        if answer.group > 1:
            notes = (
                f"each value is the mean of {answer.group} runs, because the browser's clock is "
                "too coarse for one",
            )
        return Warmed(answer.runs, answer.duration_s, notes)

    def turn(self, block: Block) -> Turn:
        reply, _ = self.ask(self.turn_request(block))
        answer = TurnedAnswer.model_validate(reply)
        self._turns += 1
        self._raw_ns += answer.raw_ns
        return Turn(raw_ns=list(answer.raw_ns), duration_s=answer.duration_s)

    def memory(self) -> Memory | None:
        reply, _ = self.ask({"do": "memory"})
        wasm_bytes = MemoryAnswer.model_validate(reply).wasm_bytes
        return None if wasm_bytes is None else Memory(wasm_mb=round(wasm_bytes / 1e6, 1))

    def stages(self) -> StageTimes | None:
        return None if self._job.text_inputs is None else super().stages()

    def profile(self) -> tuple[Operator, ...] | None:
        return None

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        if request["do"] == "stages":
            request = {**request, "tokenizer_sha256": Path(request["tokenizer"]).name}
        for _ in range(_OPENINGS):
            try:
                self._restore()
                validate = self._validator(request, arrays or {})
                return self._send(request, arrays, validate=validate, key=self._key)
            except PageReopened:
                self._say_reopened()
        raise MeasurementError(
            f"{self._job.label}: the page was opened again {_OPENINGS} times in a row: leave it "
            "open and in front, or time fewer models at once with --format and --precision"
        )

    def close(self) -> None:
        # The page unloads it with the next request.
        if self._key:
            self._session.ended.append(self._cell)
            self._key = ""

    def _restore(self) -> None:
        """Load the model again if the page was opened again."""
        if self._key == self._session.exchange.key:
            return
        first_loaded = self._first_loaded
        loaded = self._load()
        if first_loaded is not None and loaded.threads != first_loaded.threads:
            raise MeasurementError(
                f"{self._job.label}: the page was opened again, and the model now runs on "
                f"{loaded.threads} threads in place of {first_loaded.threads}"
            )
        if self._protocol is not None:
            request = self.warm_request(self._protocol)
            self._send(request, None, validate=reply_validator(WarmedAnswer), key=self._key)

    def _send(
        self,
        request: Message,
        arrays: Mapping[str, Array] | None,
        *,
        validate: Callable[[Message, Arrays], None],
        key: str,
    ) -> tuple[Message, Arrays]:
        session, label = self._session, self._job.label
        message = {**request, "cell": self._cell, "ended": list(session.ended)}
        try:
            reply, outputs = session.exchange.ask(
                message,
                arrays,
                artifact=self._artifact,
                validate=validate,
                timeout_s=session.timeout_s,
                key=key,
            )
        except PageGone:
            raise MeasurementError(
                f"{label}: the page has gone, nothing was heard of it for a while: open it again, "
                "keep it in front, and repeat the command"
            ) from None
        except NoAnswer:
            raise MeasurementError(
                f"{label}: the page did not answer '{request['do']}' within "
                f"{session.timeout_s:g} s: time a smaller model, or wait longer with --timeout"
            ) from None
        except InvalidReply as error:
            raise MeasurementError(
                f"{label}: the page's answer to '{request['do']}' is refused: {error}"
            ) from None
        session.ended.clear()
        if "error" in reply:
            raise self._failure(request, " ".join(str(reply["error"]).split())[:300])
        return reply, outputs

    def _failure(self, request: Message, reason: str) -> MeasurementError:
        if request["do"] == "load" and self._first_loaded is None:
            return ModelRefused(f"the browser cannot run it: {reason}")
        return MeasurementError(f"{self._job.label}: {reason}")

    def _validator(
        self, request: Message, arrays: Mapping[str, Array]
    ) -> Callable[[Message, Arrays], None]:
        if request["do"] == "answers":
            return functools.partial(validate_outputs, arrays)
        return reply_validator(ANSWERS[request["do"]], texts=len(request.get("texts", ())))

    def _say_reopened(self) -> None:
        say(f"{self._job.label}: the page was opened again, its models are loaded again")


@functools.lru_cache(maxsize=256)
def _checksum_of(path: Path, size: int, changed_ns: int) -> str:
    return sha256(path)


def _checksum(path: Path) -> str:
    status = path.stat()
    return _checksum_of(path, status.st_size, status.st_mtime_ns)
