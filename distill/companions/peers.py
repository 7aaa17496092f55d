"""Models that are trained beside the student."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from distill.companions.base import Cast, Companion, Scene
from distill.recipe.companions import Peers
from distill.recipe.terms import Name
from distill.signals.capture import Signals, capture
from distill.signals.shapes import Shape


class PeerModels(Companion):
    """Each member is a student of its own, with its own dropout and its own new weights."""

    def __init__(self, config: Peers, cast: Cast) -> None:
        super().__init__()
        assert cast.make_student is not None
        models = [cast.make_student(config.student, i + 1) for i in range(config.count)]
        self.models = nn.ModuleList(models)
        self._members = config.members
        self.shapes = {
            name: Shape.of(model.config) for name, model in zip(self._members, models, strict=True)
        }

    @property
    def whole_models(self) -> Mapping[Name, nn.Module]:
        return dict(zip(self._members, self.models, strict=True))

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        return {
            name: capture(model, scene.inputs, self.needs_of(name))
            for name, model in zip(self._members, self.models, strict=True)
        }
