"""A timer that exchanges messages with a worker: over a pipe, a network, or a browser page."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmark.config import Block, Protocol
from benchmark.devices.base import Job, Loaded, StageTimes, Timer, Turn, Warmed
from benchmark.measure.inputs import Feed
from benchmark.schema import Memory, Operator
from edge.process.wire import Array, Arrays, Message, joined, parted


class MessageTimer(Timer):
    """Sends the requests of `benchmark.worker.worker`; subclasses transport the messages.

    feeds_per_message: number of feeds in one message.
    """

    feeds_per_message: ClassVar[int] = 64

    def __init__(self, job: Job) -> None:
        self._job = job

    @abstractmethod
    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        """Return the reply to a request; raises MeasurementError, one line, without one."""

    def place(self, path: Path) -> str:
        """Return the path on the device of a file of this machine, copied there if necessary."""
        return str(path.resolve())

    def load(self) -> Loaded:
        request = {
            "do": "load",
            "engine": self._job.engine,
            "path": self.place(self._job.path),
            "threads": self._job.threads,
        }
        reply, _ = self.ask(request, joined(self._job.feeds))
        return Loaded(
            load_ms=reply["load_ns"] / 1e6,
            first_ms=reply["first_ns"] / 1e6,
            nodes=reply.get("nodes"),
            library_bytes=reply.get("library_bytes"),
        )

    def warm(self, protocol: Protocol) -> Warmed:
        reply, _ = self.ask(self.warm_request(protocol))
        return Warmed(runs=reply["runs"], duration_s=reply["duration_s"])

    def turn(self, block: Block) -> Turn:
        reply, _ = self.ask(self.turn_request(block))
        return Turn(**reply)

    def warm_request(self, protocol: Protocol) -> Message:
        """Return the request for a warm-up."""
        return {
            "do": "warm",
            "runs": protocol.warmup_runs,
            "min_s": protocol.warmup_s,
            "max_s": protocol.warmup_max_s,
        }

    def turn_request(self, block: Block) -> Message:
        """Return the request for a turn."""
        return {"do": "turn", **vars(block)}

    def memory(self) -> Memory | None:
        reply, _ = self.ask({"do": "memory"})
        peak, before = reply["peak_bytes"], reply["before_bytes"]
        if peak is None:
            return None
        delta = None if before is None else round(max(0, peak - before) / 1e6, 1)
        # Android alone tells it.
        pss = reply.get("pss_bytes")
        return Memory(
            peak_rss_mb=round(peak / 1e6, 1),
            delta_mb=delta,
            pss_mb=None if pss is None else round(pss / 1e6, 1),
        )

    def answers(self, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
        for start in range(0, len(feeds), self.feeds_per_message):
            batch = feeds[start : start + self.feeds_per_message]
            _, arrays = self.ask({"do": "answers"}, joined(batch))
            yield from parted(arrays)

    def stages(self) -> StageTimes | None:
        text_inputs = self._job.text_inputs
        if text_inputs is None:
            return None
        request = {
            "do": "stages",
            "tokenizer": self.place(text_inputs.tokenizer),
            "texts": list(text_inputs.texts),
            "pairs": None if text_inputs.pairs is None else list(text_inputs.pairs),
            "lengths": list(text_inputs.lengths),
            "dynamic": text_inputs.dynamic,
            "pad_id": text_inputs.pad_id,
            "names": list(text_inputs.names),
        }
        reply, _ = self.ask(request)
        return StageTimes(**reply)

    def profile(self) -> tuple[Operator, ...] | None:
        reply, _ = self.ask({"do": "profile"})
        operators = reply["operators"]
        return None if operators is None else tuple(Operator(**operator) for operator in operators)
