"""What every companion is: a module that says something about a batch, trained with the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill.recipe.terms import Name
from distill.signals.capture import Needs, Signals
from distill.signals.shapes import Setting, Shape

# A new model of a SPEC (the run's own student for None), made with a seed.
MakeStudent = Callable[[str | None, int], Any]


@dataclass(frozen=True)
class Cast:
    """What companions are made of. setting: of the models there are before them.

    who: those whom a name stands for. teacher: the model itself, where there is one.
    models: those that are trained here and are whole ones.
    """

    student: Any
    setting: Setting
    make_student: MakeStudent | None
    who: Callable[[Name], tuple[Name, ...]] = lambda name: (name,)
    teacher: Any = None
    models: Mapping[Name, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """One batch as companions see it.

    said: the signals of the student, the teacher where there is one, and earlier companions.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    said: Mapping[Name, Signals]


class Companion(nn.Module):
    """Saved and resumed with the student, optimised where it has parameters.

    Only what `write` adds is kept beside the trained student.

    shapes: of each member, by name; None for one that has answers and no inside. asks: what it
    needs of those it is made of, beside answers.
    """

    shapes: Mapping[Name, Shape | None]
    asks: Mapping[Name, Needs]

    def __init__(self) -> None:
        super().__init__()
        self.asks = {}
        self._wanted: Mapping[Name, Needs] = {}

    @property
    def whole_models(self) -> Mapping[Name, nn.Module]:
        """The members that are models which run alone."""
        return {}

    def answer_for(self, needs: Mapping[Name, Needs]) -> None:
        """Told once, before training, what terms ask of its members; may set `asks`."""
        self._wanted = needs

    def needs_of(self, name: Name) -> Needs:
        """What terms ask of a member beside its answers."""
        return self._wanted.get(name, frozenset())

    def advance(self, step: int, progress: float) -> None:
        """Called before each optimiser step, from 0; progress is the share of steps done."""

    def write(self, folder: Path) -> None:
        """Add to the student's checkpoint in `folder` what belongs to it; mostly nothing does."""

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        """The signals of each member; of one that has nothing to say yet, none."""
        raise NotImplementedError
