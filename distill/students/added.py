"""Students that are two models, whose answers are added."""

from __future__ import annotations

from dataclasses import replace

from distill.students.base import Student
from edge.errors import ConfigError
from edge.models import register


def added(first: Student, second: Student) -> Student:
    """One student that starts by answering what `first` does; the second one's answers start at 0.

    Raises ConfigError when their vocabularies differ, or for a task whose answers do not add up.
    """
    from edge.models.total import SumConfig, add

    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise ConfigError("a student of two models reads one tokenizer: theirs are different")
    register(SumConfig.model_type)
    try:
        model = add(first.model, second.model)
    except ValueError:
        raise ConfigError(
            f"the answers of {first.task.name} cannot be added: leave out the second model"
        ) from None
    checkpoint = replace(first.checkpoint, config=model.config)
    return Student(model, first.tokenizer, checkpoint, first.copied_layers)
