"""Tasks of Transformers' own heads, and whether a teacher has the head that a run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.recipe.config import DistillConfig
from distill.recipe.student import StudentSpec
from distill.tasks import DEFAULT_TASK, task_training, tasks_where
from distill.tasks.base import TaskTraining
from edge.checkpoint import locate
from edge.data import Table, read_table
from edge.embeddings.head import MODULES_FILE
from edge.errors import CheckpointError, ConfigError, DataError
from edge.tasks import get_task
from edge.tasks.feature_extraction import FeatureExtraction

if TYPE_CHECKING:
    from distill.students import Student, Teacher


class HeadTraining(TaskTraining):
    """A task whose models are an encoder of Transformers and its head."""

    def student(
        self, spec: StudentSpec, teacher: Teacher | None, table: Table, **options: Any
    ) -> Student:
        from distill.students import build_student

        if spec.embedding_dim is not None:
            raise ConfigError(
                f"embedding_dim={spec.embedding_dim} is for embeddings, and this student does "
                f"{options['task']}: leave it out"
            )
        return build_student(spec, teacher, table, **options)


def check_head(config: DistillConfig, teacher: str, task: str) -> None:
    """Raise CheckpointError for an encoder without a head that is to teach labelled rows.

    task: what the teacher does. sentence-transformers' folders are no bare encoders.
    """
    if task_training(task).has_small_head or (locate(teacher) / MODULES_FILE).is_file():
        return
    for name in tasks_where(lambda training: training.has_small_head):
        try:
            layout = get_task(name).layout
            rows = read_table(config.train, columns=config.columns, layout=layout)
        except DataError:
            continue  # the rows of another task
        if task == FeatureExtraction.name and rows.pairs is not None:
            return  # pairs with a similarity are what embeddings learn from
        flag = "" if name == DEFAULT_TASK else f" --task {name}"
        raise CheckpointError(
            f"teacher {teacher} does {task} and has no head for the labels of {config.train}: "
            f"make a teacher of it first with edge distill --recipe finetune{flag} --student "
            f"{teacher} --train {config.train} --output TEACHER"
        )
