"""The student and the terms of a stage as one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from distill.capture import Needs, Signals, capture
from distill.companions.base import Cast, Companion, MakeStudent, Scene
from distill.companions.peers import PeerModels
from distill.config import Stage
from distill.objectives.answers import READINGS, Labels, Logits, Margin
from distill.objectives.attention import Attentions, Relations
from distill.objectives.base import Batch, Objective, Totals
from distill.objectives.layers import Contrastive, Flow, HiddenStates, Selectivity
from distill.setting import Setting
from distill.terms import STUDENT, TEACHER, AnyTerm, Name, TaughtTerm, at, counts
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
# What a stage's companion of a `kind` builds.
COMPANIONS: dict[str, Callable[..., Companion]] = {"peers": PeerModels}
_TALLIED = ("samples", "tokens", "labelled")


class Learner(nn.Module):
    """The student and what is trained with it: one module to optimise, clip, save and resume.

    Only `student` is ever exported. names: a column for each term. needs: what the teacher has to
    give beside its answers. weights: of the terms, at the step that `advance` told.
    """

    # Trainer must not believe that a loss was scaled for it.
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: Any,
        stage: Stage,
        setting: Setting,
        make_student: MakeStudent | None = None,
    ) -> None:
        super().__init__()
        if stage.needs_teacher and setting.teacher is None:
            raise ConfigError(f"stage '{stage.name}' learns from a teacher: name it with --teacher")
        terms = [term for term in stage.terms if counts(term)]
        self.student = student
        self._reading = READINGS[setting.task]
        self._companions: list[Companion] = []
        for config in stage.companions:
            assert make_student is not None
            companion = COMPANIONS[config.kind](config, Cast(student, setting, make_student))
            setting = replace(setting, others={**setting.others, **companion.shapes})
            self._companions.append(companion)
        self.companions = nn.ModuleList(self._companions)
        self._terms = [_parts(term, stage, setting) for term in terms]
        self.objectives = nn.ModuleList(one for parts in self._terms for one in parts)
        self.names = _names([term.match for term in terms])
        needs = self._all_needs()
        self.needs = needs.get(TEACHER, frozenset())
        self._own_needs = needs.get(STUDENT, frozenset())
        self._weights = [term.weight for term in terms]
        self._scheduled = not all(isinstance(weight, float) for weight in self._weights)
        weights = torch.tensor([at(weight, 0.0) for weight in self._weights])
        self.register_buffer("weights", weights, persistent=False)

    def advance(self, step: int, steps: int) -> None:
        """Set weights, temperatures and maps for the optimiser step after `step` of `steps`.

        They follow from the step alone, or from what a training checkpoint holds.
        """
        progress = step / max(steps, 1)
        for parts in self._terms:
            for objective in parts:
                objective.advance(step, progress)
        for companion in self._companions:
            companion.advance(step, progress, self.student)
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
        sources: dict[Name, Signals] = {} if taught is None else {TEACHER: taught}
        for companion in self._companions:
            sources |= companion(Scene(inputs, labels, {STUDENT: said, **sources}))
        batch = Batch(said, sources, labels, inputs["attention_mask"], totals)
        return torch.stack([_value(parts, batch) for parts in self._terms])

    def _all_needs(self) -> dict[Name, Needs]:
        """What everybody has to give beside answers; companions are told theirs, last one first."""
        needs: dict[Name, Needs] = {}

        def add(name: Name, wanted: Needs) -> None:
            needs[name] = needs.get(name, frozenset()) | wanted

        for objective in (one for parts in self._terms for one in parts):
            add(objective.learner, objective.ours)
            if objective.source is not None:
                add(objective.source, objective.theirs)
        for companion in reversed(self._companions):
            companion.answer_for({name: needs.get(name, frozenset()) for name in companion.shapes})
            for name, wanted in companion.asks.items():
                add(name, wanted)
        return needs


def _parts(term: AnyTerm, stage: Stage, setting: Setting) -> list[Objective]:
    """The term once for each learner and each other it follows.

    Raises ConfigError when nobody follows anybody but themselves.
    """
    build = OBJECTIVES[term.match]
    learners = stage.who(term.learner)
    if not isinstance(term, TaughtTerm):
        return [build(term.model_copy(update={"learner": name}), setting) for name in learners]
    pairs = [(a, b) for a in learners for b in stage.who(term.teacher) if a != b]
    if not pairs:
        raise ConfigError(
            f"match: {term.match} of stage '{stage.name}' lets {term.learner} follow "
            f"{term.teacher}, which is nobody else: name another teacher"
        )
    return [build(term.model_copy(update={"learner": a, "teacher": b}), setting) for a, b in pairs]


def _value(parts: Sequence[Objective], batch: Batch) -> Tensor:
    """The sum over learners, as if each were trained alone, of the mean over whom it follows."""
    learners = len({objective.learner for objective in parts})
    return torch.stack([objective(batch) for objective in parts]).mean() * learners


def _names(matches: Sequence[str]) -> list[str]:
    """A column name for each term; a match used again is numbered."""
    return [
        match if matches[:i].count(match) == 0 else f"{match}_{matches[:i].count(match) + 1}"
        for i, match in enumerate(matches)
    ]
