"""What every term is made of: the models' shapes, a batch, and distances between mapped layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.attention import attention_shape
from distill.capture import Need, Needs, Signals
from distill.mapping import DYNAMIC, Pairs, pair_layers
from distill.objectives.transport import Transport
from distill.terms import EmbeddingsTerm, MappedTerm, SourceName
from edge.models import MODELS

# Counts over the whole batch of an optimiser step, by what a term averages over.
Totals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What a term must know about a model.

    width: of hidden states. attention: heads and their common width; None where attention cannot
    be captured. embedding_width: of what the first layer reads, where that is not `width`.
    """

    layers: int
    width: int
    architecture: str = ""
    attention: tuple[int, int] | None = None
    embedding_width: int | None = None

    @classmethod
    def of(cls, config: Any) -> Shape:
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            architecture=config.model_type,
            attention=attention_shape(config),
            # Architectures of Transformers widen embeddings before they call them a hidden state.
            embedding_width=config.embedding_size if config.model_type in MODELS else None,
        )

    def width_at(self, layer: int) -> int:
        """The width of a hidden state; layer 0 is the embeddings."""
        return self.width if layer or self.embedding_width is None else self.embedding_width


@dataclass(frozen=True)
class Setting:
    """The two models and the task a stage is built for; no teacher when only labels teach."""

    student: Shape
    teacher: Shape | None
    problem_type: str | None
    task: str = "text-classification"

    def source(self, name: SourceName) -> Shape:
        """The shape of whoever gives a term its signals."""
        sources = {"teacher": self.teacher}
        found = sources[name]
        assert found is not None
        return found


@dataclass(frozen=True)
class Batch:
    """One batch as the terms see it.

    sources: what is followed, by the names that terms use. labels: in the task's form, -100 (a
    number that is not one, for scores) where there is none. mask: (B, L), 1 on real tokens.
    """

    student: Signals
    sources: Mapping[str, Signals]
    labels: Tensor | None
    mask: Tensor
    totals: Totals


class Objective(nn.Module):
    """One term; `forward` gives its unweighted value, a scalar.

    source: whom it follows; None for a term that follows nobody. ours, theirs: what it needs of
    the student and of its source beside their answers.
    """

    source: SourceName | None = None
    ours: Needs = frozenset()
    theirs: Needs = frozenset()

    def forward(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def advance(self, step: int, progress: float) -> None:
        """Called before each optimiser step, from 0; progress is the share of steps done."""

    def follow(self, batch: Batch) -> Signals:
        """The signals of whom this term follows."""
        assert self.source is not None
        return batch.sources[self.source]


class Mapped(Objective):
    """A distance between layers, averaged over the pairs of a layer map.

    fields: what is read of each mapped layer, in Signals' names.
    """

    fields: tuple[str, ...] = ()

    def __init__(self, term: MappedTerm | EmbeddingsTerm, setting: Setting) -> None:
        super().__init__()
        student, teacher = setting.student, setting.source(term.teacher)
        self.source = term.teacher
        self.transport: Transport | None = None
        if isinstance(term, EmbeddingsTerm):
            self.pairs: Pairs = ((0, 0),)
        elif term.layers == DYNAMIC:
            self.transport = Transport(student.layers, teacher.layers, every=term.remap_steps)
            self.pairs = self.transport.pairs
        else:
            self.pairs = pair_layers(term.layers, student.layers, teacher.layers)
        self.ours = frozenset(Need(name, s) for s, _ in self.pairs for name in self.fields)
        self.theirs = frozenset(Need(name, t) for _, t in self.pairs for name in self.fields)

    def distance(self, batch: Batch, index: int) -> Tensor:
        """The distance of the layers of `pairs[index]`, a scalar."""
        raise NotImplementedError

    def advance(self, step: int, progress: float) -> None:
        if self.transport is not None:
            self.transport.advance(step)

    def forward(self, batch: Batch) -> Tensor:
        if self.transport is not None:
            return self.transport(lambda index: self.distance(batch, index))
        return torch.stack([self.distance(batch, i) for i in range(len(self.pairs))]).mean()


def projections(pairs: Pairs, setting: Setting, source: SourceName) -> nn.ModuleList:
    """A linear map from the student's width to the source's for each pair, where they differ.

    They are trained with the student and thrown away.
    """
    student, teacher = setting.student, setting.source(source)
    widths = [(student.width_at(s), teacher.width_at(t)) for s, t in pairs]
    return nn.ModuleList(
        nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False)
        for ours, theirs in widths
    )
