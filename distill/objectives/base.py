"""What every term is made of: a batch, and distances between mapped layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.capture import Need, Needs, Signals
from distill.mapping import DYNAMIC, Pairs, pair_layers
from distill.objectives.transport import Transport
from distill.setting import Setting
from distill.terms import STUDENT, EmbeddingsTerm, MappedTerm, Name
from distill.unfreezing import turns

# Counts over the whole batch of an optimiser step, by what a term averages over.
Totals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """One batch as the terms see it.

    sources: what everybody else says, by the names that terms use. labels: in the task's form,
    -100 (a number that is not one, for scores) where there is none. mask: (B, L), 1 on real tokens.
    """

    student: Signals
    sources: Mapping[str, Signals]
    labels: Tensor | None
    mask: Tensor
    totals: Totals

    def hears(self, name: Name) -> bool:
        """Whether who has a name says anything in this batch."""
        return name == STUDENT or name in self.sources

    def said_by(self, name: Name) -> Signals:
        """The signals of who takes part under a name."""
        return self.student if name == STUDENT else self.sources[name]


class Objective(nn.Module):
    """One term of one learner; `forward` gives its unweighted value, a scalar.

    learner: who learns. source: whom it follows; None for a term that follows nobody. ours,
    theirs: what it needs of the two beside their answers.
    """

    learner: Name = STUDENT
    source: Name | None = None
    ours: Needs = frozenset()
    theirs: Needs = frozenset()

    def forward(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def advance(self, step: int, progress: float) -> None:
        """Called before each optimiser step, from 0; progress is the share of steps done."""

    def learn(self, batch: Batch) -> Signals:
        """The signals of who learns by this term."""
        return batch.said_by(self.learner)

    def follow(self, batch: Batch) -> Signals:
        """The signals of whom this term follows, without gradients."""
        assert self.source is not None
        return batch.said_by(self.source).detach()


class Mapped(Objective):
    """A distance between layers, averaged over the pairs of a layer map.

    fields: what is read of each mapped layer, in Signals' names.
    """

    fields: tuple[str, ...] = ()

    def __init__(self, term: MappedTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__()
        student, teacher = setting.shape(term.learner), setting.shape(term.teacher)
        self.learner, self.source = term.learner, term.teacher
        self.transport: Transport | None = None
        if isinstance(term, EmbeddingsTerm):
            self.pairs: Pairs = ((0, 0),)
        elif term.layers == DYNAMIC:
            self.transport = Transport(student.layers, teacher.layers, every=term.remap_steps)
            self.pairs = self.transport.pairs
        else:
            self.pairs = pair_layers(term.layers, student.layers, teacher.layers)
        self._in_turn = None if isinstance(term, EmbeddingsTerm) else term.in_turn
        self._counting: Sequence[int] = range(1 if self._in_turn else len(self.pairs))
        self.ours = frozenset(Need(name, s) for s, _ in self.pairs for name in self.fields)
        self.theirs = frozenset(Need(name, t) for _, t in self.pairs for name in self.fields)

    def distance(self, batch: Batch, index: int) -> Tensor:
        """The distance of the layers of `pairs[index]`, a scalar."""
        raise NotImplementedError

    def advance(self, step: int, progress: float) -> None:
        if self.transport is not None:
            self.transport.advance(step)
        if self._in_turn is not None:
            self._counting = [turns(progress / self._in_turn, len(self.pairs)) - 1]

    def forward(self, batch: Batch) -> Tensor:
        if self.transport is not None:
            return self.transport(lambda index: self.distance(batch, index))
        return torch.stack([self.distance(batch, i) for i in self._counting]).mean()


def projections(pairs: Pairs, setting: Setting, learner: Name, source: Name) -> nn.ModuleList:
    """A linear map from the learner's width to the source's for each pair, where they differ.

    They are trained with the student and thrown away.
    """
    student, teacher = setting.shape(learner), setting.shape(source)
    widths = [(student.width_at(s), teacher.width_at(t)) for s, t in pairs]
    return nn.ModuleList(
        nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False)
        for ours, theirs in widths
    )
