"""A teacher that is no model: sure of the label, and of nothing else."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.companions.base import Cast, Companion, Scene
from distill.recipe.companions import Virtual
from distill.recipe.terms import STUDENT, Name
from distill.signals.capture import Signals
from edge.errors import ConfigError
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION


class VirtualTeacher(Companion):
    """Answers `probability` for the right class and the rest evenly for all others, in logits.

    Where there is no label it says what the student does, which teaches nothing.
    """

    def __init__(self, config: Virtual, cast: Cast) -> None:
        super().__init__()
        reading, problem = cast.setting.reading, cast.setting.problem_type
        if reading.vectors or problem == REGRESSION:
            kind = "a score" if problem == REGRESSION else "an embedding"
            raise ConfigError(f"companion {config.name}: {kind} has no classes to be sure of")
        self._name, self._probability = config.name, config.probability
        self._reading = reading
        self._is_multi_label = problem == MULTI_LABEL
        self.shapes = {config.name: None}

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        reading, labels, mask = self._reading, scene.labels, scene.inputs["attention_mask"]
        said = scene.said[STUDENT].outputs
        if labels is None:
            return {}
        known = reading.labelled(labels, mask)
        columns = labels.unbind(-1) if reading.over_tokens else (labels,)
        certain = known.unbind(-1) if reading.over_tokens else (known,)
        outputs = {}
        for name, column, sure in zip(reading.outputs, columns, certain, strict=True):
            theirs = said[name].detach().float()
            ours = self._answer(theirs, column, reading.classes(mask))
            outputs[name] = torch.where(sure.unsqueeze(-1), ours, theirs)
        return {self._name: Signals(outputs)}

    def _answer(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        """The virtual answer in logits, (..., C); labels: (...), or (..., C) of 0 and 1."""
        right = self._probability
        if self._is_multi_label:
            return (2 * labels.nan_to_num().float() - 1) * math.log(right / (1 - right))
        count = logits.shape[-1]
        classes = valid.sum(-1, keepdim=True) if valid is not None else labels.new_tensor(count)
        others = math.log(1 - right) - (classes - 1).clamp(min=1).float().log()
        here = F.one_hot(labels.clamp(min=0).long(), count).bool()
        return torch.where(here, math.log(right), others.expand_as(logits))
