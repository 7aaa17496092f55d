"""The terms of a stage as modules: what each compares, and the projections it learns with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill import losses
from distill.capture import Signals, capture
from distill.config import EmbeddingsTerm, HiddenStatesTerm, LabelsTerm, LogitsTerm, Stage
from distill.mapping import Pairs, pair_layers
from edge.errors import ConfigError
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION

# Counts over the whole batch of an optimiser step, by what a term averages over.
Totals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What a term must know about a model."""

    layers: int
    width: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        return cls(layers=config.num_hidden_layers, width=config.hidden_size)


@dataclass(frozen=True)
class Setting:
    """The two models and the task a stage is built for; no teacher when only labels teach."""

    student: Shape
    teacher: Shape | None
    problem_type: str | None


@dataclass(frozen=True)
class Batch:
    """One batch as the terms see it. labels: (B,) or (B, C). mask: (B, L), 1 on real tokens."""

    student: Signals
    teacher: Signals | None
    labels: Tensor
    mask: Tensor
    totals: Totals


class Objective(nn.Module):
    """One term; `forward` gives its unweighted value, a scalar."""

    needs: frozenset[str] = frozenset()

    def forward(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Logits(Objective):
    """The distance between the two answers, as the task's problem type reads them."""

    def __init__(self, term: LogitsTerm, setting: Setting) -> None:
        super().__init__()
        # A score has no distribution to soften: its KL, at unit variance, is the squared error.
        if term.loss == "mse" or setting.problem_type == REGRESSION:
            self._loss: losses.Loss = losses.logits_mse
        else:
            kl = losses.sigmoid_kl if setting.problem_type == MULTI_LABEL else losses.softmax_kl
            self._loss = partial(kl, temperature=term.temperature)

    def forward(self, batch: Batch) -> Tensor:
        assert batch.teacher is not None
        values = self._loss(batch.student.logits, batch.teacher.logits)
        return losses.masked_mean(values, total=batch.totals["samples"])


class Labels(Objective):
    """The distance to the labels of the data."""

    def __init__(self, term: LabelsTerm, setting: Setting) -> None:
        super().__init__()
        self._loss = {
            REGRESSION: losses.squared_error,
            MULTI_LABEL: losses.binary_cross_entropy,
        }.get(setting.problem_type or "", losses.cross_entropy)

    def forward(self, batch: Batch) -> Tensor:
        values = self._loss(batch.student.logits, batch.labels)
        return losses.masked_mean(values, total=batch.totals["samples"])


class States(Objective):
    """The distance between pairs of hidden states, averaged over pairs and real tokens.

    Where widths differ, the student's states pass a linear map of their own for each pair.
    """

    needs = frozenset({"hidden_states"})

    def __init__(self, loss: str, pairs: Pairs, tokens: str, setting: Setting) -> None:
        super().__init__()
        assert setting.teacher is not None
        self._loss = losses.STATE_LOSSES[loss]
        self._pairs = pairs
        self._first = tokens == "first"
        widths = setting.student.width, setting.teacher.width
        same = widths[0] == widths[1]
        self.projections = nn.ModuleList(
            nn.Identity() if same else nn.Linear(*widths, bias=False) for _ in pairs
        )

    def forward(self, batch: Batch) -> Tensor:
        assert batch.teacher is not None
        ours, theirs = batch.student.hidden_states, batch.teacher.hidden_states
        assert ours is not None and theirs is not None
        mask, total = batch.mask, batch.totals["tokens"]
        if self._first:
            mask, total = mask[:, :1], batch.totals["samples"]
        values = []
        for projection, (s, t) in zip(self.projections, self._pairs, strict=True):
            tokens = slice(0, 1) if self._first else slice(None)
            student, teacher = projection(ours[s][:, tokens]), theirs[t][:, tokens]
            assert student.shape == teacher.shape, (student.shape, teacher.shape)
            values.append(losses.masked_mean(self._loss(student, teacher), mask, total))
        return torch.stack(values).mean()


def _hidden_states(term: HiddenStatesTerm, setting: Setting) -> Objective:
    assert setting.teacher is not None
    pairs = pair_layers(term.layers, setting.student.layers, setting.teacher.layers)
    return States(term.loss, pairs, term.tokens, setting)


def _embeddings(term: EmbeddingsTerm, setting: Setting) -> Objective:
    return States(term.loss, ((0, 0),), term.tokens, setting)


# What a recipe's `match` builds.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "logits": Logits,
    "labels": Labels,
    "hidden_states": _hidden_states,
    "embeddings": _embeddings,
}


class Learner(nn.Module):
    """The student and what is trained with it: one module to optimise, clip, save and resume.

    Only `student` is ever exported.
    """

    # Trainer must not believe that a loss was scaled for it.
    accepts_loss_kwargs = False

    def __init__(self, student: Any, stage: Stage, setting: Setting) -> None:
        super().__init__()
        if stage.needs_teacher and setting.teacher is None:
            raise ConfigError(f"stage '{stage.name}' learns from a teacher: name it with --teacher")
        terms = [term for term in stage.terms if term.weight]
        self.student = student
        objectives: list[Objective] = [OBJECTIVES[term.match](term, setting) for term in terms]
        self.objectives = nn.ModuleList(objectives)
        self.names = _names([term.match for term in terms])
        self.needs = frozenset[str]().union(*(objective.needs for objective in objectives))
        self.register_buffer("weights", torch.tensor([t.weight for t in terms]), persistent=False)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        labels: Tensor,
        taught: Signals | None,
        totals: Totals,
    ) -> Tensor:
        """Each term's unweighted value, shape (terms,), in the order of `names`."""
        said = capture(self.student, inputs, self.needs)
        batch = Batch(said, taught, labels, inputs["attention_mask"], totals)
        return torch.stack([objective(batch) for objective in self.objectives])


def _names(matches: Sequence[str]) -> list[str]:
    """A column name for each term; a match used again is numbered."""
    return [
        match if matches[:i].count(match) == 0 else f"{match}_{matches[:i].count(match) + 1}"
        for i, match in enumerate(matches)
    ]
