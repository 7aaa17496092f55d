"""Answers added up with weights that are learned: one sum for all, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from distill.companions.base import Cast, Companion, Scene
from distill.losses import distributions
from distill.losses.layer_map import part_of
from distill.recipe.companions import Gate, Mixtures
from distill.recipe.terms import STUDENT, Name
from distill.signals.capture import HIDDEN_STATES, Need, Signals
from distill.signals.outputs import Reading
from distill.signals.shapes import Setting


class GatedAnswers(Companion):
    """sum_i g_i z_i of the logits of its members, g the softmax of a linear gate; one a text.

    Source: Lan et al. 2018, "Knowledge Distillation by On-the-Fly Native Ensemble", eq. 4. There
    the gate is also batch-normalised and rectified.
    """

    def __init__(self, config: Gate, cast: Cast) -> None:
        super().__init__()
        self.shapes = {config.name: None}
        self._name = config.name
        self._members = cast.who(config.of)
        self._reading = cast.setting.reading
        student = cast.setting.student
        self._layer = part_of(student.layers, config.layer)
        self.gate = nn.Linear(student.width_at(self._layer), len(self._members))
        self.asks = {STUDENT: frozenset({Need(HIDDEN_STATES, self._layer)})}

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        states = scene.said[STUDENT].hidden_states[self._layer]
        read = summary(states, scene.inputs["attention_mask"], self._reading)
        weights = self.gate(read).float().softmax(-1)  # (B, members)
        return {self._name: weighted([scene.said[name] for name in self._members], weights)}


class MixedAnswers(Companion):
    """For each member a the sum_b w_ab z_b of all their logits, w_a the softmax of L(h_a) E(h_b).

    h: the last hidden state, as `summary` gives it; L and E are learned, one each for all members
    of a width. Source: Chen et al. 2020, "Online Knowledge Distillation with Diverse Peers", 3.2;
    logits are mixed as the authors' own code does, where the paper's equation has probabilities.
    """

    def __init__(self, config: Mixtures, cast: Cast) -> None:
        super().__init__()
        self._kin = config.brings(cast.who).kin
        self.shapes = dict.fromkeys(self._kin)
        self._reading = cast.setting.reading
        self._needs = last_states(self._kin.values(), cast.setting)
        self.asks = {name: frozenset({need}) for name, need in self._needs.items()}
        widths = {cast.setting.shape(name).width for name in self._needs}
        self.looks = _projections(widths, config.width)
        self.seen = _projections(widths, config.width)

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        mask = scene.inputs["attention_mask"]
        said = {name: scene.said[name].detach() for name in self._needs}
        states = [
            summary(said[name].hidden_states[need.layer], mask, self._reading)
            for name, need in self._needs.items()
        ]
        looks, seen = (
            torch.stack([kind[str(state.shape[-1])](state) for state in states], 1)
            for kind in (self.looks, self.seen)
        )
        # (B, members, width) twice to (B, members, members), each row in sum 1
        weights = distributions.matmul(looks, seen.transpose(1, 2)).softmax(-1)
        answers = list(said.values())
        return {
            name: weighted(answers, weights[:, list(said).index(one)])
            for name, one in self._kin.items()
        }


def summary(states: Tensor, mask: Tensor, reading: Reading) -> Tensor:
    """What a text is about, (B, L, H) to (B, H).

    The first token's state where texts are classified by it, else the mean over real tokens.
    """
    if not (reading.per_token or reading.over_tokens):
        return states[:, 0]
    return distributions.text_mean(states, mask)


def weighted(said: Sequence[Signals], weights: Tensor) -> Signals:
    """The sum of several's answers; weights: (B, several)."""
    outputs = {}
    for name in said[0].outputs:
        stacked = torch.stack([signals.outputs[name].float() for signals in said], 1)
        outputs[name] = (stacked * weights.view(*weights.shape, *[1] * (stacked.ndim - 2))).sum(1)
    return Signals(outputs)


def last_states(names: Iterable[Name], setting: Setting) -> dict[Name, Need]:
    """The last hidden state of each; raises ConfigError for one that has answers alone."""
    return {name: Need(HIDDEN_STATES, setting.shape(name).layers) for name in names}


def _projections(widths: set[int], width: int) -> nn.ModuleDict:
    return nn.ModuleDict({str(own): nn.Linear(own, width, bias=False) for own in sorted(widths)})
