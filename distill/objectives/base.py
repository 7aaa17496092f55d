"""What every term is made of: a batch, and distances between mapped layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.losses.layer_map import DYNAMIC, Pairs, pair_layers
from distill.objectives.transport import Transport
from distill.recipe.parts import turns
from distill.recipe.terms import STUDENT, EmbeddingsTerm, MappedTerm, Name
from distill.signals.capture import Need, Needs, Signals, States
from distill.signals.shapes import Setting

# Of the mean square of what is fitted.
_RIDGE = 1e-3
_TINY = 1e-12
# Counts over the whole batch of an optimiser step, by what a term averages over.
Totals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """One batch as the terms see it.

    sources: what everybody else says, by the names that terms use. labels: in the task's form,
    -100 (a number that is not one, for scores) where there is none. mask: (B, L), 1 on real tokens.
    masks: the same of those who read the texts in other tokens, by name.
    """

    student: Signals
    sources: Mapping[str, Signals]
    labels: Tensor | None
    mask: Tensor
    totals: Totals
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def read_by(self, name: Name | None) -> Tensor:
        """The mask of the tokens that who has a name reads, (B, L)."""
        return self.masks.get(name or STUDENT, self.mask)

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

    @property
    def watches(self) -> bool:
        """Whether it is to be shown some batches before the first step."""
        return any(isinstance(module, Projection) for module in self.modules())

    def watch(self, batch: Batch) -> None:
        """Shown one of them."""

    def settle(self) -> Iterator[str]:
        """Start where they put it; gives what a person should know of them."""
        for module in self.modules():
            if isinstance(module, Projection):
                module.settle()
        yield from ()

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


def least_squares(square: Tensor, both: Tensor) -> Tensor:
    """The matrix W (M, N) for which W x is nearest to y, of sums over samples of x and y.

    square: of x x^T, (N, N). both: of x y^T, (N, M). A little ridge keeps it defined where samples
    are few. What is not finite gives a matrix that is not.
    """
    ridge = _RIDGE * square.diagonal().mean().clamp(min=_TINY) * torch.eye(len(square)).to(square)
    return torch.linalg.solve_ex(square + ridge, both).result.T.contiguous()


def widened(values: Tensor) -> Tensor:
    """In 64 bits, which not every device has."""
    return values.cpu().double()


class Projection(nn.Linear):
    """A learned map from the learner's width to another's, trained with it and thrown away.

    It starts where least squares put it on what it watches: a random one would have to be learned
    before its term says anything about the learner.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(ours, theirs, bias=False)
        self._sums: tuple[Tensor, Tensor] | None = None

    def watch(self, ours: Tensor, theirs: Tensor) -> None:
        """What both say of the same, (N, ours) and (N, theirs)."""
        x, y = widened(ours), widened(theirs)
        sums = x.T @ x, x.T @ y
        if self._sums is not None:
            sums = self._sums[0] + sums[0], self._sums[1] + sums[1]
        self._sums = sums

    def settle(self) -> None:
        """Start where what was watched puts it; at random where that is nothing."""
        if self._sums is not None:
            with torch.no_grad():
                self.weight.copy_(least_squares(*self._sums))
            self._sums = None


class Projections(nn.ModuleList):
    """A map for each pair of hidden states whose widths differ, or one for all pairs."""

    def __init__(
        self, pairs: Pairs, setting: Setting, learner: Name, source: Name, *, shared: bool = False
    ) -> None:
        student, teacher = setting.shape(learner), setting.shape(source)
        widths = [(student.width_at(s), teacher.width_at(t)) for s, t in pairs]
        super().__init__(
            nn.Identity() if ours == theirs else Projection(ours, theirs)
            for ours, theirs in (widths[:1] if shared else widths)
        )
        self._pairs = pairs

    def of(self, index: int) -> nn.Module:
        """That of a pair."""
        return self[index if len(self) > 1 else 0]

    def watch(self, ours: States, theirs: States, mask: Tensor) -> None:
        """Both's states of a batch, (B, L, H) by layer; mask: (B, L), 1 where they count."""
        counted = mask.bool()
        for index, (s, t) in enumerate(self._pairs):
            projection = self.of(index)
            if isinstance(projection, Projection):
                projection.watch(ours[s][counted], theirs[t][counted])
