"""Whether several teachers can be listened to at once: one task, its labels, one tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from distill.students import Teacher
from edge.checkpoint import Checkpoint
from edge.errors import CheckpointError
from edge.tokenization import describe

# What of a tokenizer decides how a text becomes tokens.
_STEPS = ("normalizer", "pre_tokenizer", "model", "post_processor")


def check_answers(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise CheckpointError unless all do what the first one does, with its labels in its order."""
    for other in checkpoints[1:]:
        first = checkpoints[0]
        if other.task.name != first.task.name:
            raise _disagree(first, other, f"do {first.task.name} and {other.task.name}")
        if other.labels != first.labels:
            ours, theirs = ", ".join(first.labels or ()), ", ".join(other.labels or ())
            raise _disagree(
                first, other, f"answer {ours} and {theirs}", " (id2label of config.json names them)"
            )
        if other.task.problem_type != first.task.problem_type:
            kinds = f"{first.task.problem_type} and {other.task.problem_type}"
            raise _disagree(first, other, f"answer {kinds}")


def check_words(teachers: Sequence[Teacher]) -> None:
    """Raise CheckpointError unless all read the same tokens of any text as the first one does."""
    steps = [_steps(teacher) for teacher in teachers]
    for teacher, own in zip(teachers[1:], steps[1:], strict=True):
        if own != steps[0]:
            raise _disagree(
                teachers[0].checkpoint, teacher.checkpoint, "read texts with different tokenizers"
            )


def _steps(teacher: Teacher) -> Any:
    text, info = describe(teacher.tokenizer, folder=teacher.checkpoint.path)
    values = json.loads(text)
    return [values.get(step) for step in _STEPS], info.pad_token_id, info.mask_token_id


def _disagree(first: Checkpoint, other: Checkpoint, what: str, hint: str = "") -> CheckpointError:
    return CheckpointError(
        f"teachers {first.source} and {other.source} {what}: several teachers of one student "
        f"must have the same task, labels and tokenizer{hint}"
    )
