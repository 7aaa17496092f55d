"""Schemas of a page's replies, and checks of their plausibility."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from edge.config import Config
from edge.process.wire import Array, Arrays, Message

# Tolerance between the clocks of a page and of this machine.
_TOLERANCE_S = 0.5

_Nanoseconds = Annotated[int, Field(ge=0, le=10**14)]
_Seconds = Annotated[float, Field(ge=0, le=10**5, allow_inf_nan=False)]


class Answer(Config):
    """A page's reply; see `apps/web/src/protocol.ts`."""

    def spent_s(self) -> float:
        """Return the seconds that the reply accounts for."""
        return 0.0


class LoadedAnswer(Answer):
    """Reply to `load`."""

    load_ns: _Nanoseconds
    first_ns: _Nanoseconds
    threads: int = Field(ge=1, le=1024)
    provider: str = Field(pattern=r"^[A-Za-z]{1,20}$")
    notes: tuple[Annotated[str, Field(max_length=600)], ...] = Field(max_length=8)

    def spent_s(self) -> float:
        return (self.load_ns + self.first_ns) / 1e9


class WarmedAnswer(Answer):
    """Reply to `warm`; group: number of runs that each later value is the mean of."""

    runs: int = Field(ge=1)
    duration_s: _Seconds
    group: int = Field(ge=1)

    def spent_s(self) -> float:
        return self.duration_s


class TurnedAnswer(Answer):
    """Reply to `turn`."""

    raw_ns: tuple[_Nanoseconds, ...] = Field(min_length=1, max_length=2_000_000)
    duration_s: _Seconds

    def spent_s(self) -> float:
        return max(self.duration_s, sum(self.raw_ns) / 1e9)


class MemoryAnswer(Answer):
    """Reply to `memory`; None if the page cannot tell."""

    wasm_bytes: int | None = Field(ge=0)


class StagesAnswer(Answer):
    """Reply to `stages`."""

    tokenize_ns: tuple[_Nanoseconds, ...]
    infer_ns: tuple[_Nanoseconds, ...]
    e2e_ns: tuple[_Nanoseconds, ...]

    def spent_s(self) -> float:
        return sum(self.e2e_ns) / 1e9


ANSWERS: dict[str, type[Answer]] = {
    "warm": WarmedAnswer,
    "turn": TurnedAnswer,
    "memory": MemoryAnswer,
    "stages": StagesAnswer,
}


def reply_validator(model: type[Answer], *, texts: int = 0) -> Callable[[Message, Arrays], None]:
    """Return a validator of a reply's schema and of its times, which start now."""
    start = time.monotonic()

    def validate(reply: Message, arrays: Arrays) -> None:
        try:
            answer = model.model_validate(reply)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"{place}: {problem['msg']}") from None
        if arrays:
            raise ValueError("it contains arrays, and none were requested")
        if isinstance(answer, StagesAnswer) and {len(v) for v in vars(answer).values()} != {texts}:
            raise ValueError(f"it is not about {texts} texts")
        passed_s = time.monotonic() - start
        if answer.spent_s() > passed_s * 1.01 + _TOLERANCE_S:
            raise ValueError(
                f"it accounts for {answer.spent_s():.1f} s, and only {passed_s:.1f} s have passed"
            )

    return validate


def validate_outputs(feeds: Mapping[str, Array], reply: Message, arrays: Arrays) -> None:
    """Raise ValueError unless there are outputs for each feed, with as many texts."""
    texts = {key.partition("/")[0]: len(value) for key, value in feeds.items()}
    records = {key.partition("/")[0] for key in arrays}
    if reply or records != set(texts):
        raise ValueError(f"it holds {len(records)} answers to {len(texts)} inputs")
    for key, value in arrays.items():
        number, _, name = key.partition("/")
        if (
            not name
            or value.ndim < 1
            or len(value) != texts[number]
            or value.dtype.kind not in "fiu"
        ):
            raise ValueError(
                f"the output {key} has a wrong shape or type: {list(value.shape)}, {value.dtype}"
            )
