"""What terms and companions must know of the models they are built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from distill.recipe.terms import STUDENT, TEACHER, Name, is_teacher
from distill.signals.attention import attention_shape
from distill.signals.outputs import Reading
from distill.tasks import DEFAULT_TASK, task_training
from edge.errors import ConfigError
from edge.models import MODELS


@dataclass(frozen=True)
class Shape:
    """What a term must know about a model.

    width: of hidden states. attention: heads and their common width; None where attention cannot
    be captured. embedding_width: of what the first layer reads, where that is not `width`.
    feature_width: of what the last layer of a small head reads.
    """

    layers: int
    width: int
    architecture: str = ""
    attention: tuple[int, int] | None = None
    embedding_width: int | None = None
    feature_width: int = 0

    @classmethod
    def of(cls, config: Any) -> Shape:
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            architecture=config.model_type,
            attention=attention_shape(config),
            # Architectures of Transformers widen embeddings before they call them a hidden state.
            embedding_width=config.embedding_size if config.model_type in MODELS else None,
            feature_width=getattr(config, "classifier_size", config.hidden_size),
        )

    def width_at(self, layer: int) -> int:
        """The width of a hidden state; layer 0 is the embeddings."""
        return self.width if layer or self.embedding_width is None else self.embedding_width


@dataclass(frozen=True)
class Setting:
    """The models and the task a stage is built for; no teacher when only labels teach.

    others: the shapes of those whom companions bring, and of the teachers where there are several;
    None for one that has answers and no inside. spreads: of teachers that read both texts of a row
    at once where the student reads one by one, how far their scores differ. directions: of teachers
    whose vectors have more numbers than the student's, what those are made of, (size, theirs).
    unit: the student's vectors have length 1. same_words: teachers read the student's tokens.
    vocabularies: the tokens of each, where the student reads and guesses those of several.
    models: those whose weights can be compared, by name.
    """

    student: Shape
    teacher: Shape | None
    problem_type: str | None
    task: str = DEFAULT_TASK
    others: Mapping[str, Shape | None] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    unit: bool = False
    same_words: bool = True
    vocabularies: tuple[int, ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """How outputs and labels are compared."""
        return task_training(self.task).reading

    @property
    def teachers(self) -> tuple[Name, ...]:
        """What the teachers are called."""
        if self.teacher is not None:
            return (TEACHER,)
        return tuple(n for n in self.others if n.startswith(f"{TEACHER}-") and is_teacher(n))

    def shape(self, name: Name) -> Shape:
        """The shape of who has a name; raises ConfigError for one that has answers only."""
        found = {STUDENT: self.student, TEACHER: self.teacher, **self.others}[name]
        if found is None:
            several = f", or {' or '.join(self.teachers)}" if name == TEACHER else ""
            raise ConfigError(
                f"{name} is made of several and has answers only, no layers to compare: "
                f"use match: logits{several}"
            )
        return found
