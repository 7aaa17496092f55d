"""A term whose learner is told apart from the other by a discriminator, which learns as well."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from distill.losses import distributions
from distill.objectives.base import Batch
from distill.objectives.layers import Projected
from distill.recipe.terms import AdversarialTerm
from distill.signals.shapes import Setting


class Discriminator(nn.Module):
    """The probability that states (B, L, H) are the followed model's, (B,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(width, width)
        self.text = nn.Linear(width, 1)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        mean = distributions.text_mean(F.leaky_relu(self.tokens(states), 0.2), mask)
        probability: Tensor = self.text(mean).float().sigmoid().squeeze(-1)
        return probability


class Adversarial(Projected):
    """(1 - D(t))^2 + D(s)^2 for the discriminator and (1 - D(s))^2 for the learner, added up.

    s, t: the learner's and the other's states of a pair of layers, s through a learned map where
    widths differ. In the first two both stand still, in the last D does: one backward pass gives
    each side the gradient of its own loss alone.
    Source: Chung et al. 2020, "Feature-map-level Online Adversarial Knowledge Distillation", 3.2,
    the least-squares losses of the discriminator and of the feature extractor.
    """

    def __init__(self, term: AdversarialTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        shape = setting.shape(term.teacher)
        self.discriminators = nn.ModuleList(Discriminator(shape.width_at(t)) for _, t in self.pairs)

    def distance(self, batch: Batch, index: int) -> Tensor:
        judge, mask = self.discriminators[index], batch.mask
        ours, theirs = self.states(batch, index)
        still = {name: value.detach() for name, value in judge.named_parameters()}
        deceived = functional_call(judge, still, (ours, mask))
        values = (
            torch.stack(
                [(1 - judge(theirs, mask)).square(), judge(ours.detach(), mask).square()]
            ).sum(0)
            + (1 - deceived).square()
        )
        return distributions.masked_mean(values, total=batch.totals["samples"])
