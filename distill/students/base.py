"""Teachers and students, and a random model of a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge.checkpoint import Checkpoint
from edge.errors import ConfigError
from edge.tasks import Task
from edge.tokenization import Tokenizer


@dataclass(frozen=True)
class Teacher:
    """An opened teacher: its checkpoint, its loaded model, its Transformers tokenizer."""

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Student:
    """A model ready to be trained.

    checkpoint: what it was made of, with the student's own configuration. copied_layers: the
    teacher's layers it starts from, counted from 0, where there are any.
    """

    model: Any
    tokenizer: Any
    checkpoint: Checkpoint
    copied_layers: tuple[int, ...] | None = None

    @property
    def task(self) -> Task:
        return self.checkpoint.task

    def as_teacher(self) -> Teacher:
        """The student as whom another one is made of."""
        return Teacher(self.checkpoint, self.model, self.tokenizer)


def tokenizer_of(reader: Teacher | Student) -> Tokenizer:
    """The tokenizer with which a teacher or a student reads texts."""
    return Tokenizer.of(reader.tokenizer, folder=reader.checkpoint.path)


def new_model(checkpoint: Checkpoint) -> Any:
    """A random model of a checkpoint's configuration and task."""
    import torch
    import transformers

    auto = getattr(transformers, checkpoint.task.auto_class)
    trusted = checkpoint.trust_remote_code
    try:
        return auto.from_config(checkpoint.config, dtype=torch.float32, trust_remote_code=trusted)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"a student of this shape cannot be built: {reason}") from error
