"""One classifier on what several models see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.companions.base import Cast, Companion, Scene
from distill.companions.weighing import last_states
from distill.recipe.companions import Fusion
from distill.recipe.terms import Name
from distill.signals.capture import Signals
from distill.tasks import task_training
from edge.errors import ConfigError


class FusedAnswers(Companion):
    """classifier(gelu(fuse([h_1; h_2; ...]))), h_i the last hidden state of each member.

    Of the first token where a text has one answer, of every token elsewhere.
    Source: Kim et al. 2019, "Feature Fusion for Online Mutual Knowledge Distillation", 3.1; of the
    convolutions there, linear layers are left for states.
    """

    def __init__(self, config: Fusion, cast: Cast) -> None:
        super().__init__()
        if not task_training(cast.setting.task).has_small_head:
            raise ConfigError(
                f"companion {config.name} classifies, and {cast.setting.task} does not: "
                "use kind: ensemble or kind: gate"
            )
        self.shapes = {config.name: None}
        self._name = config.name
        self._reading = cast.setting.reading
        self._needs = last_states(cast.who(config.of), cast.setting)
        self.asks = {name: frozenset({need}) for name, need in self._needs.items()}
        width = config.width or cast.setting.student.width
        self.fuse = nn.Linear(sum(cast.setting.shape(name).width for name in self._needs), width)
        answers = len(self._reading.outputs)
        classes = answers if self._reading.over_tokens else cast.student.config.num_labels
        self.classifier = nn.Linear(width, classes)

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        states = [scene.said[name].hidden_states[need.layer] for name, need in self._needs.items()]
        joined = torch.cat(states, -1)
        if self._reading.whole:
            joined = joined[:, 0]
        answers: Tensor = self.classifier(F.gelu(self.fuse(joined)))
        columns = answers.unbind(-1) if self._reading.over_tokens else (answers,)
        return {self._name: Signals(dict(zip(self._reading.outputs, columns, strict=True)))}
