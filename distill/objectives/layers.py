"""Terms on hidden states: their values, how they turn into each other, where neurons are active."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from distill.losses import distributions, relations
from distill.losses.layer_map import Pairs, pair_layers
from distill.objectives.base import Batch, Mapped, Objective, Projection, Projections, widened
from distill.recipe.terms import (
    ContrastiveTerm,
    EmbeddingsTerm,
    FeaturesTerm,
    FlowTerm,
    HiddenStatesTerm,
    MappedTerm,
    Tokens,
    at,
)
from distill.signals.capture import FEATURES, HIDDEN_STATES, Need
from distill.signals.shapes import Setting
from distill.tasks import task_training
from edge.errors import ConfigError

# The share of the mean square that varies from text to text. In a teacher that pools the mean of
# its tokens the first one has 0.00001 in the middle layers, 0.9 in the last.
_STILL = 1e-3


class Projected(Mapped):
    """Mapped hidden states, the student's through a linear map where widths differ.

    Each pair has its own; a map that is renewed has one for all of them.
    """

    fields = (HIDDEN_STATES,)
    tokens: Tokens = "all"

    def __init__(self, term: MappedTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self.projections = Projections(
            self.pairs, setting, term.learner, term.teacher, shared=self.transport is not None
        )

    def watch(self, batch: Batch) -> None:
        ours = {s: self._ours(batch, s) for s, _ in self.pairs}
        theirs = {t: self._theirs(batch, t) for _, t in self.pairs}
        self.projections.watch(ours, theirs, self.mask(batch))

    def mask(self, batch: Batch) -> Tensor:
        """1 on what is compared, (B, tokens)."""
        return batch.mask if self.tokens == "all" else torch.ones_like(batch.mask[:, :1])

    def states(self, batch: Batch, index: int) -> tuple[Tensor, Tensor]:
        """Both models' states of a pair, (B, tokens, H), of one width."""
        s, t = self.pairs[index]
        student = self.projections.of(index)(self._ours(batch, s))
        teacher = self._theirs(batch, t)
        assert student.shape == teacher.shape, (student.shape, teacher.shape)
        return student, teacher

    def _theirs(self, batch: Batch, layer: int) -> Tensor:
        return self._picked(self.follow(batch).hidden_states[layer], batch.read_by(self.source))

    def _ours(self, batch: Batch, layer: int) -> Tensor:
        return self._picked(self.learn(batch).hidden_states[layer], batch.read_by(self.learner))

    def _picked(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.tokens == "mean":
            return distributions.text_mean(states.float(), mask).unsqueeze(1)
        return states if self.tokens == "all" else states[:, :1]


class HiddenStates(Projected):
    """The distance between pairs of hidden states, averaged over pairs and real tokens."""

    def __init__(self, term: HiddenStatesTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self._loss = distributions.STATE_LOSSES[term.loss]
        self.tokens = term.tokens or "all"
        self._followed: dict[int, list[Tensor]] = {}

    @property
    def watches(self) -> bool:
        return super().watches or self.tokens == "first"

    def watch(self, batch: Batch) -> None:
        super().watch(batch)
        if self.tokens == "first":
            for _, t in self.pairs:
                self._followed.setdefault(t, []).append(widened(self._theirs(batch, t)[:, 0]))

    def settle(self) -> Iterator[str]:
        yield from super().settle()
        still = [str(t) for t, states in self._followed.items() if _is_still(torch.cat(states))]
        self._followed.clear()
        if still:
            yield (
                f"the first token's state hardly differs from text to text in {self.source}'s "
                f"layer{'s' * (len(still) > 1)} {' and '.join(still)}, so it tells little: use "
                "tokens: all, or mean"
            )

    def distance(self, batch: Batch, index: int) -> Tensor:
        total = batch.totals["tokens" if self.tokens == "all" else "samples"]
        values = self._loss(*self.states(batch, index))
        return distributions.masked_mean(values, self.mask(batch), total)


def _is_still(states: Tensor) -> bool:
    """Whether vectors (N, H) are nearly the same."""
    varying = states.var(0, correction=0).sum() / states.square().mean(0).sum()
    return len(states) > 1 and bool(varying < _STILL)


class Features(Objective):
    """The distance between what the last layers of two heads read, of a row or of each token."""

    ours = theirs = frozenset({Need(FEATURES, 0)})

    def __init__(self, term: FeaturesTerm, setting: Setting) -> None:
        super().__init__()
        if not task_training(setting.task).has_small_head:
            raise ConfigError(
                f"match: features compares what the last layer of a task's head reads, and "
                f"{setting.task} has no head to compare: use match: hidden_states"
            )
        self.learner, self.source = term.learner, term.teacher
        self._loss = distributions.STATE_LOSSES[term.loss]
        ours, theirs = (setting.shape(n).feature_width for n in (term.learner, term.teacher))
        self.projection: nn.Module = nn.Identity()
        if ours != theirs:
            self.projection = Projection(ours, theirs)

    def watch(self, batch: Batch) -> None:
        if isinstance(self.projection, Projection):
            ours, theirs = self.learn(batch).features[0], self.follow(batch).features[0]
            # Of a text, or of its tokens.
            counted = batch.mask.bool() if ours.ndim == 3 else slice(None)
            self.projection.watch(ours[counted], theirs[counted])

    def forward(self, batch: Batch) -> Tensor:
        ours = self.projection(self.learn(batch).features[0])
        theirs = self.follow(batch).features[0]
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        values = self._loss(ours, theirs)
        if values.ndim == 1:
            return distributions.masked_mean(values, total=batch.totals["samples"])
        return distributions.masked_mean(values, batch.mask, batch.totals["tokens"])


class Contrastive(Projected):
    """Whether each first token's state finds its own among the teacher's of the same batch.

    The rows compared are those of one forward pass, whatever accumulation does.
    """

    tokens = "first"

    def __init__(self, term: ContrastiveTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self._temperature = term.temperature
        self.temperature = at(term.temperature, 0.0)

    def advance(self, step: int, progress: float) -> None:
        super().advance(step, progress)
        self.temperature = at(self._temperature, progress)

    def distance(self, batch: Batch, index: int) -> Tensor:
        ours, theirs = self.states(batch, index)
        values = distributions.info_nce(ours[:, 0], theirs[:, 0], self.temperature)
        return distributions.masked_mean(values, total=batch.totals["samples"])


class Selectivity(Mapped):
    """The distance between the activations of two layers' neurons over the tokens."""

    fields = (HIDDEN_STATES,)

    def distance(self, batch: Batch, index: int) -> Tensor:
        s, t = self.pairs[index]
        ours, theirs = self.learn(batch).hidden_states[s], self.follow(batch).hidden_states[t]
        values = relations.selectivity_mmd(ours, theirs, batch.mask)
        return distributions.masked_mean(values, total=batch.totals["samples"])


class Flow(Objective):
    """The distance between how two models turn the states of one mapped layer into the next's."""

    def __init__(self, term: FlowTerm, setting: Setting) -> None:
        super().__init__()
        self.learner, self.source = term.learner, term.teacher
        layers = setting.shape(term.learner).layers, setting.shape(term.teacher).layers
        # The embeddings come first, so that a map of one layer has a flow as well.
        self._pairs: Pairs = ((0, 0), *sorted(pair_layers(term.layers, *layers)))
        self.projections = Projections(self._pairs, setting, term.learner, term.teacher)
        self.ours = frozenset(Need(HIDDEN_STATES, s) for s, _ in self._pairs)
        self.theirs = frozenset(Need(HIDDEN_STATES, t) for _, t in self._pairs)

    def watch(self, batch: Batch) -> None:
        ours, theirs = self.learn(batch).hidden_states, self.follow(batch).hidden_states
        self.projections.watch(ours, theirs, batch.mask)

    def forward(self, batch: Batch) -> Tensor:
        pairs = list(zip(self.projections, self._pairs, strict=True))
        ours = [projection(self.learn(batch).hidden_states[s]) for projection, (s, _) in pairs]
        theirs = [self.follow(batch).hidden_states[t] for _, t in self._pairs]
        values = [
            relations.flow_mse((ours[i], ours[i + 1]), (theirs[i], theirs[i + 1]), batch.mask)
            for i in range(len(pairs) - 1)
        ]
        return distributions.masked_mean(torch.stack(values).mean(0), total=batch.totals["samples"])
