"""Tasks as training sees them: one class each, from rows to samples, students and metrics."""

from __future__ import annotations

import functools
from collections.abc import Callable

from distill.tasks.base import TaskTraining
from edge.registry import look_up

# name -> module and class, imported on use. The first one is trained for where nothing says what.
TASKS = {
    "text-classification": "distill.tasks.text_classification:TextClassificationTraining",
    "token-classification": "distill.tasks.token_classification:TokenClassificationTraining",
    "question-answering": "distill.tasks.question_answering:QuestionAnsweringTraining",
    "fill-mask": "distill.tasks.fill_mask:FillMaskTraining",
    "feature-extraction": "distill.tasks.feature_extraction:FeatureExtractionTraining",
}
DEFAULT_TASK = next(iter(TASKS))


@functools.cache
def task_training(name: str) -> TaskTraining:
    """Return the training side of the task called `name`, one of TASKS."""
    training: TaskTraining = look_up("task", name, TASKS)()
    return training


def tasks_where(holds: Callable[[TaskTraining], bool]) -> list[str]:
    """Return the names of the tasks for which something holds, in the order of TASKS."""
    return [name for name in TASKS if holds(task_training(name))]


__all__ = ["DEFAULT_TASK", "TASKS", "TaskTraining", "task_training", "tasks_where"]
