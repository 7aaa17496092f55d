"""Training of models that embed texts, which follow embedding models and cross-encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.recipe.config import DistillConfig, Recipe, Stage
from distill.recipe.student import StudentSpec
from distill.recipe.terms import Name
from distill.signals.outputs import Reading
from distill.tasks.base import RowReader, TaskTraining
from edge.checkpoint import Checkpoint
from edge.data import Table
from edge.errors import ConfigError
from edge.tasks import Task, get_task
from edge.tasks.feature_extraction import FeatureExtraction
from edge.tokenization import Tokenizer

if TYPE_CHECKING:
    from distill.data.batches import Samples
    from distill.data.views import View
    from distill.students import Student, Teacher
    from distill.training.evaluation import Judge


class FeatureExtractionTraining(TaskTraining):
    """The work is done in `distill.tasks.embeddings` and `distill.tasks.sentences`."""

    reading = Reading(("sentence_embedding",), vectors=True)
    has_small_head = False
    allows_unlabelled_rows = True

    def task_of(
        self, config: DistillConfig, recipe: Recipe, checkpoints: Sequence[Checkpoint]
    ) -> Task:
        """Embeddings, whatever the teachers do, as long as they embed or score two texts."""
        task = checkpoints[0].task
        if (config.task or recipe.task) != FeatureExtraction.name:
            return super().task_of(config, recipe, checkpoints)
        for checkpoint in checkpoints:
            _check_teacher(checkpoint)
        cross = task.name != FeatureExtraction.name
        if cross and len(checkpoints) > 1:
            raise ConfigError(
                "several cross-encoders cannot teach at once, as their scores have scales of their "
                "own: name one with --teacher"
            )
        if cross and recipe.assistants:
            raise ConfigError(
                f"recipe '{recipe.name}' has assistants, and what follows a cross-encoder cannot "
                "teach as it does: leave them out"
            )
        return get_task(FeatureExtraction.name)

    def check_teachers(
        self, table: Table, stages: Sequence[Stage], teachers: Mapping[Name, Teacher]
    ) -> None:
        from distill.tasks.embeddings import check_pairs

        check_pairs(table, stages, teachers)

    def check_stage(self, stage: Stage, table: Table, samples: Samples) -> None:
        from distill.tasks.embeddings import check_stage

        check_stage(stage, table, samples)

    def student(
        self, spec: StudentSpec, teacher: Teacher | None, table: Table, **options: Any
    ) -> Student:
        from distill.students.embedded import build_embedder

        return build_embedder(spec, teacher, table, **options)

    def settings(
        self, student: Student, teachers: Mapping[Name, Teacher], table: Table, max_length: int
    ) -> dict[str, Any]:
        from distill.tasks.embeddings import directions, spreads

        return {
            "spreads": spreads(teachers, table, max_length),
            "directions": directions(teachers, student.model, table),
            "unit": student.model.description.normalize,
        }

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        from distill.tasks.sentences import sentence_samples

        return sentence_samples(task, table, reader.tokenizer, max_length=reader.max_length)

    def views(
        self,
        table: Table,
        teachers: Mapping[Name, Teacher],
        max_length: int,
        *,
        own_words: bool,
        translations: bool,
    ) -> dict[Name, View]:
        from distill.tasks.embeddings import teacher_views

        return teacher_views(
            table, teachers, max_length, own_words=own_words, translations=translations
        )

    def judge(
        self,
        task: Task,
        table: Table,
        tokenizer: Tokenizer,
        teachers: Mapping[Name, Teacher],
        max_length: int,
    ) -> Judge:
        from distill.tasks.embeddings import judge_of

        return judge_of(task, table, tokenizer, teachers, max_length)


def _check_teacher(checkpoint: Checkpoint) -> None:
    """Raise ConfigError for a teacher that neither embeds nor scores two texts."""
    task, labels = checkpoint.task.name, checkpoint.labels or ()
    if task == FeatureExtraction.name or (task == "text-classification" and len(labels) == 1):
        return
    what = f"has {len(labels)} labels" if labels else f"does {task}"
    raise ConfigError(
        f"teacher {checkpoint.source} {what}: embeddings follow an embedding model, or a "
        "cross-encoder, which gives two texts one score (`finetune` on pairs with a column "
        "`score` makes one)"
    )
