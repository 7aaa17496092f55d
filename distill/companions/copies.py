"""Copies of models that stand still between two moments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from distill.companions.base import Cast, Companion, Scene
from distill.recipe.companions import Copies
from distill.recipe.terms import Name
from distill.signals.capture import Signals, capture
from distill.signals.shapes import Shape
from edge.errors import ConfigError


class ModelCopies(Companion):
    """Each member answers without dropout and without gradients, as its original last did.

    The copies are part of a training checkpoint, so a run that is continued goes on with them.
    """

    def __init__(self, config: Copies, cast: Cast) -> None:
        super().__init__()
        kin = config.brings(cast.who).kin
        for name in kin.values():
            if name not in cast.models:
                raise ConfigError(
                    f"companion {config.name} copies whole models that are trained here, and "
                    f"'{name}' is none: use of: student, or of: cohort with kind: peers"
                )
        # A plain dict: as submodules they would be saved twice.
        self._originals: dict[Name, Any] = {name: cast.models[one] for name, one in kin.items()}
        models = [copy.deepcopy(model) for model in self._originals.values()]
        self.models = nn.ModuleList(model.requires_grad_(False) for model in models)
        self.shapes: Mapping[Name, Shape | None] = {
            name: Shape.of(model.config) for name, model in self._originals.items()
        }
        self._every, self._waits = config.every, config.waits
        self._speaks = not config.waits

    def advance(self, step: int, progress: float) -> None:
        steps = round(step / progress) if step else 1
        turn = self._turns(step, steps)
        self._speaks = turn > 0 or not self._waits
        if step == 0 or turn > self._turns(step - 1, steps):
            for model, original in zip(self.models, self._originals.values(), strict=True):
                model.load_state_dict(original.state_dict())

    def _turns(self, step: int, steps: int) -> int:
        """How often they were made again since the start of a stage of `steps`."""
        if isinstance(self._every, int):
            return step // self._every
        share = Fraction(self._every)
        return step * share.denominator // (share.numerator * steps)

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        if not self._speaks:
            return {}
        # no_grad and not inference_mode: a backward pass keeps these tensors.
        with torch.no_grad():
            return {
                name: capture(model.eval(), scene.inputs, self.needs_of(name))
                for name, model in zip(self._originals, self.models, strict=True)
            }
