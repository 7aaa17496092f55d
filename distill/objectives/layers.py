"""Terms on hidden states: their values, how they turn into each other, where neurons are active."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill import losses, relations
from distill.capture import FEATURES, HIDDEN_STATES, Need
from distill.mapping import Pairs, pair_layers
from distill.objectives.base import Batch, Mapped, Objective, projections
from distill.setting import Setting
from distill.terms import (
    ContrastiveTerm,
    EmbeddingsTerm,
    FeaturesTerm,
    FlowTerm,
    HiddenStatesTerm,
    MappedTerm,
    at,
)
from edge.errors import ConfigError

# Their heads read what is as wide as an embedding, or there is none.
_LARGE_HEADS = ("fill-mask", "feature-extraction")


class _Projected(Mapped):
    """Mapped hidden states, the student's through a linear map where widths differ.

    Each pair has its own; a map that is renewed has one for all of them.
    """

    fields = (HIDDEN_STATES,)

    def __init__(self, term: MappedTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        kept = self.pairs if self.transport is None else self.pairs[:1]
        self.projections = projections(kept, setting, term.learner, term.teacher)

    def states(self, batch: Batch, index: int, tokens: slice) -> tuple[Tensor, Tensor]:
        """Both models' states of a pair, (B, tokens, H), of one width."""
        s, t = self.pairs[index]
        projection = self.projections[index if self.transport is None else 0]
        student = projection(self.learn(batch).hidden_states[s][:, tokens])
        teacher = self.follow(batch).hidden_states[t][:, tokens]
        assert student.shape == teacher.shape, (student.shape, teacher.shape)
        return student, teacher


class HiddenStates(_Projected):
    """The distance between pairs of hidden states, averaged over pairs and real tokens."""

    def __init__(self, term: HiddenStatesTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self._loss = losses.STATE_LOSSES[term.loss]
        self._first = term.tokens == "first"

    def distance(self, batch: Batch, index: int) -> Tensor:
        mask, total = batch.mask, batch.totals["tokens"]
        if self._first:
            mask, total = mask[:, :1], batch.totals["samples"]
        states = self.states(batch, index, slice(0, 1) if self._first else slice(None))
        return losses.masked_mean(self._loss(*states), mask, total)


class Features(Objective):
    """The distance between what the last layers of two heads read, of a row or of each token."""

    ours = theirs = frozenset({Need(FEATURES, 0)})

    def __init__(self, term: FeaturesTerm, setting: Setting) -> None:
        super().__init__()
        if setting.task in _LARGE_HEADS:
            raise ConfigError(
                f"match: features compares what the last layer of a task's head reads, and "
                f"{setting.task} has no head to compare: use match: hidden_states"
            )
        self.learner, self.source = term.learner, term.teacher
        self._loss = losses.STATE_LOSSES[term.loss]
        ours, theirs = (setting.shape(n).feature_width for n in (term.learner, term.teacher))
        self.projection: nn.Module = nn.Identity()
        if ours != theirs:
            self.projection = nn.Linear(ours, theirs, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        ours = self.projection(self.learn(batch).features[0])
        theirs = self.follow(batch).features[0]
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        values = self._loss(ours, theirs)
        if values.ndim == 1:
            return losses.masked_mean(values, total=batch.totals["samples"])
        return losses.masked_mean(values, batch.mask, batch.totals["tokens"])


class Contrastive(_Projected):
    """Whether each first token's state finds its own among the teacher's of the same batch.

    The rows compared are those of one forward pass, whatever accumulation does.
    """

    def __init__(self, term: ContrastiveTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self._temperature = term.temperature
        self.temperature = at(term.temperature, 0.0)

    def advance(self, step: int, progress: float) -> None:
        super().advance(step, progress)
        self.temperature = at(self._temperature, progress)

    def distance(self, batch: Batch, index: int) -> Tensor:
        ours, theirs = self.states(batch, index, slice(0, 1))
        values = losses.info_nce(ours[:, 0], theirs[:, 0], self.temperature)
        return losses.masked_mean(values, total=batch.totals["samples"])


class Selectivity(Mapped):
    """The distance between the activations of two layers' neurons over the tokens."""

    fields = (HIDDEN_STATES,)

    def distance(self, batch: Batch, index: int) -> Tensor:
        s, t = self.pairs[index]
        ours, theirs = self.learn(batch).hidden_states[s], self.follow(batch).hidden_states[t]
        values = relations.selectivity_mmd(ours, theirs, batch.mask)
        return losses.masked_mean(values, total=batch.totals["samples"])


class Flow(Objective):
    """The distance between how two models turn the states of one mapped layer into the next's."""

    def __init__(self, term: FlowTerm, setting: Setting) -> None:
        super().__init__()
        self.learner, self.source = term.learner, term.teacher
        layers = setting.shape(term.learner).layers, setting.shape(term.teacher).layers
        # The embeddings come first, so that a map of one layer has a flow as well.
        self._pairs: Pairs = ((0, 0), *sorted(pair_layers(term.layers, *layers)))
        self.projections = projections(self._pairs, setting, term.learner, term.teacher)
        self.ours = frozenset(Need(HIDDEN_STATES, s) for s, _ in self._pairs)
        self.theirs = frozenset(Need(HIDDEN_STATES, t) for _, t in self._pairs)

    def forward(self, batch: Batch) -> Tensor:
        pairs = list(zip(self.projections, self._pairs, strict=True))
        ours = [projection(self.learn(batch).hidden_states[s]) for projection, (s, _) in pairs]
        theirs = [self.follow(batch).hidden_states[t] for _, t in self._pairs]
        values = [
            relations.flow_mse((ours[i], ours[i + 1]), (theirs[i], theirs[i + 1]), batch.mask)
            for i in range(len(pairs) - 1)
        ]
        return losses.masked_mean(torch.stack(values).mean(0), total=batch.totals["samples"])
