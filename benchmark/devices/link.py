"""A link to a cell's worker process, whose failures are MeasurementErrors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import edge.process.link
from edge.errors import MeasurementError
from edge.process.wire import Array, Arrays, Message


class Link(edge.process.link.Link):
    """A running worker.

    label: its name in messages. exits: exit code -> message, in place of "the worker process ended
    with exit code N".
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        label: str,
        env: Mapping[str, str],
        cwd: Path,
        exits: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(argv, env=env, cwd=cwd)
        self.label = label
        self._exits = exits or {}

    def request(
        self, message: Message, arrays: Mapping[str, Array] | None = None, *, timeout_s: float
    ) -> tuple[Message, Arrays]:
        """Return the worker's reply.

        Raises MeasurementError, one line, if the worker reports a failure, dies, or takes longer
        than `timeout_s` seconds.
        """
        try:
            return super().request(message, arrays, timeout_s=timeout_s)
        except edge.process.link.Refused as refused:
            raise MeasurementError(f"{self.label}: {refused}") from None
        except edge.process.link.NoAnswer:
            raise MeasurementError(
                f"{self.label}: no answer to '{message['do']}' within {timeout_s:g} s; "
                "the worker process was ended"
            ) from None
        except edge.process.link.Ended as end:
            last = f": {end.last_line}" if end.last_line else ""
            if end.code is not None and end.code in self._exits:
                detail = f" ({end.last_line})" if end.last_line else ""
                raise MeasurementError(f"{self.label}: {self._exits[end.code]}{detail}") from None
            raise MeasurementError(
                f"{self.label}: the worker process {_cause(end)}{last}"
            ) from None


def _cause(end: edge.process.link.Ended) -> str:
    if end.signal_name == "SIGKILL":
        advice = "out of memory? close other programs, or time fewer artifacts at once"
        return f"was ended by SIGKILL ({advice})"
    if end.signal_name:
        return f"was ended by {end.signal_name}"
    if end.code is None:
        return "closed its output without an answer"
    return f"ended with exit code {end.code}"
