"""The student and the terms of a stage as one module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.capture import Need, Needs, Signals, capture
from distill.config import Stage
from distill.objectives.answers import READINGS, Labels, Logits, Margin
from distill.objectives.attention import Attentions, Relations
from distill.objectives.base import Batch, Objective, Setting, Totals
from distill.objectives.layers import Contrastive, Flow, HiddenStates, Selectivity
from distill.terms import TEACHER, at, counts
from edge.errors import ConfigError

# What a recipe's `match` builds.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "logits": Logits,
    "labels": Labels,
    "margin": Margin,
    "hidden_states": HiddenStates,
    "embeddings": HiddenStates,
    "attention_scores": Attentions,
    "attention_probs": Attentions,
    "relations": Relations,
    "flow": Flow,
    "selectivity": Selectivity,
    "contrastive": Contrastive,
}
_TALLIED = ("samples", "tokens", "labelled")


class Learner(nn.Module):
    """The student and what is trained with it: one module to optimise, clip, save and resume.

    Only `student` is ever exported. names: a column for each term. needs: what the teacher has to
    give beside its answers. weights: of the terms, at the step that `advance` told.
    """

    # Trainer must not believe that a loss was scaled for it.
    accepts_loss_kwargs = False

    def __init__(self, student: Any, stage: Stage, setting: Setting) -> None:
        super().__init__()
        if stage.needs_teacher and setting.teacher is None:
            raise ConfigError(f"stage '{stage.name}' learns from a teacher: name it with --teacher")
        terms = [term for term in stage.terms if counts(term)]
        self.student = student
        self._reading = READINGS[setting.task]
        objectives: list[Objective] = [OBJECTIVES[term.match](term, setting) for term in terms]
        self.objectives = nn.ModuleList(objectives)
        self._terms = objectives
        self.names = _names([term.match for term in terms])
        self.needs = _union(term.theirs for term in objectives if term.source == TEACHER)
        self._own_needs = _union(term.ours for term in objectives)
        self._weights = [term.weight for term in terms]
        self._scheduled = not all(isinstance(weight, float) for weight in self._weights)
        weights = torch.tensor([at(weight, 0.0) for weight in self._weights])
        self.register_buffer("weights", weights, persistent=False)

    def advance(self, step: int, steps: int) -> None:
        """Set weights, temperatures and maps for the optimiser step after `step` of `steps`.

        They follow from the step alone, or from what a training checkpoint holds.
        """
        progress = step / max(steps, 1)
        for objective in self._terms:
            objective.advance(step, progress)
        if self._scheduled:
            values = [at(weight, progress) for weight in self._weights]
            self.get_buffer("weights").copy_(torch.tensor(values))

    def tally(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What terms average over, counted in one batch with its labels; see `totals`."""
        mask, labels = batch["attention_mask"], batch.get("labels")
        samples, tokens = mask.new_tensor(len(mask)), mask.sum()
        labelled = samples
        if labels is not None:
            labelled = self._reading.labelled(labels, mask).sum()
        return torch.stack([samples, tokens, labelled]).float()

    def totals(self, counts: Tensor) -> dict[str, Tensor]:
        """Tallies of an optimiser step, summed, by name; none is 0."""
        return dict(zip(_TALLIED, counts.clamp(min=1).unbind(), strict=True))

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        labels: Tensor | None,
        taught: Signals | None,
        totals: Totals,
    ) -> Tensor:
        """Each term's unweighted value, shape (terms,), in the order of `names`."""
        said = capture(self.student, inputs, self._own_needs)
        # A method whose sources are not a teacher, as peers or exits, adds them here.
        sources: dict[str, Signals] = {} if taught is None else {TEACHER: taught}
        batch = Batch(said, sources, labels, inputs["attention_mask"], totals)
        return torch.stack([objective(batch) for objective in self._terms])


def _union(needs: Iterable[Needs]) -> Needs:
    return frozenset[Need]().union(*needs)


def _names(matches: Sequence[str]) -> list[str]:
    """A column name for each term; a match used again is numbered."""
    return [
        match if matches[:i].count(match) == 0 else f"{match}_{matches[:i].count(match) + 1}"
        for i, match in enumerate(matches)
    ]
