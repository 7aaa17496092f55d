"""Which parts of a student learn in a stage, and when: as data."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from edge.config import Config
from edge.provenance import AS_IS

# A layer's number, from 1, -1 being the last; a name for several; or that of a module.
Part = int | Annotated[str, AS_IS, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]
EVERYTHING = "all"


class Unfreeze(Config):
    """Parts that begin to learn one after the other, in equal shares of a stage's steps.

    order: `down` from the head to the embeddings, `up` the other way round. until: the share of the
    stage's steps in which each has had its turn. settled: at what share of the learning rate those
    go on that had theirs; 0 freezes them again.
    Sources: Howard and Ruder 2018, "Universal Language Model Fine-tuning", 3.3 (down); Sun et al.
    2020, "MobileBERT", 3.3 (up, with at most 0.1 for the layers below).
    """

    order: Literal["down", "up"] = "down"
    until: PositiveFloat = Field(default=0.5, le=1)
    settled: float = Field(default=1.0, ge=0, le=1)

    def share(self, place: int, count: int, progress: float) -> float:
        """Of the learning rate, for the part that comes at `place`, from 0, of `count`."""
        newest = turns(progress / self.until, count) - 1
        if place > newest:
            return 0.0
        return 1.0 if place == newest else self.settled


def turns(share: float, count: int) -> int:
    """How many of `count` have come, one after the other, when `share` of the time is over.

    The first comes at once, each lasts as long as another, and the last stays.
    """
    return min(count, 1 + math.floor(share * count))
