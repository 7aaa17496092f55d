"""The tasks of models, by Transformers' names."""

from __future__ import annotations

from edge.bundle.manifest import Activation, Similarity
from edge.registry import look_up
from edge.tasks.base import Outputs, Task

# name -> module and class, imported on use.
TASKS = {
    "text-classification": "edge.tasks.text_classification:TextClassification",
    "token-classification": "edge.tasks.token_classification:TokenClassification",
    "question-answering": "edge.tasks.question_answering:QuestionAnswering",
    "fill-mask": "edge.tasks.fill_mask:FillMask",
    "feature-extraction": "edge.tasks.feature_extraction:FeatureExtraction",
}


def get_task(
    name: str,
    *,
    labels: tuple[str, ...] | None = None,
    problem_type: str | None = None,
    pairs: bool | None = None,
    activation: Activation | None = None,
    similarity: Similarity | None = None,
) -> Task:
    """Return the task called `name`; raises ConfigError with the nearest name otherwise.

    pairs: see Task; for text-classification, which takes one text or two.
    activation: function that turns logits into scores. similarity: of two embeddings. Both default
    to those of the task.
    """
    task: Task = look_up("task", name, TASKS)(labels, problem_type)
    if name == "text-classification":
        task.pairs = pairs
    task.activation = activation or task.activation
    task.similarity = similarity or task.similarity
    return task


__all__ = ["TASKS", "Outputs", "Task", "get_task"]
