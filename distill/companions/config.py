"""Companions as data: who takes part in a stage beside the student and the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt

from distill.terms import STUDENT, Name
from edge.config import Config


class AnyCompanion(Config):
    """What all companions share. kind: which one; name: what terms call it."""

    kind: str
    name: Name

    @property
    def members(self) -> tuple[Name, ...]:
        """Who speaks: each has signals of its own that terms can name."""
        return (self.name,)

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        """Names that stand for several of those who take part."""
        return {}

    @property
    def reads(self) -> tuple[Name, ...]:
        """Whose signals it is made of, beside the student's."""
        return ()


class Peers(AnyCompanion):
    """Models that are trained beside the student and thrown away.

    count: how many; they are called NAME-1, NAME-2 ... and all of them NAME; with the student they
    are the `cohort`. student: their SPEC, see `distill.spec`; the student's own by default.
    """

    kind: Literal["peers"]
    name: Name = "peer"
    count: PositiveInt = 1
    student: str | None = None

    @property
    def members(self) -> tuple[Name, ...]:
        return tuple(f"{self.name}-{i + 1}" for i in range(self.count))

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        return {self.name: self.members, "cohort": (STUDENT, *self.members)}


# A tagged union as soon as there is a second one: Field(discriminator="kind").
Companion = Peers
