"""What terms and companions must know of the models they are built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.attention import attention_shape
from distill.terms import STUDENT, TEACHER, Name
from edge.models import MODELS


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
    """The models and the task a stage is built for; no teacher when only labels teach.

    others: the shapes of those whom companions bring.
    """

    student: Shape
    teacher: Shape | None
    problem_type: str | None
    task: str = "text-classification"
    others: Mapping[str, Shape] = field(default_factory=dict)

    def shape(self, name: Name) -> Shape:
        """The shape of who takes part under a name."""
        found = {STUDENT: self.student, TEACHER: self.teacher, **self.others}[name]
        assert found is not None
        return found
