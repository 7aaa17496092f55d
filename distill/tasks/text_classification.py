"""Training of models that classify or score a text or a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.recipe.student import StudentSpec
from distill.tasks.base import RowReader, check_classes, first_target
from distill.tasks.heads import HeadTraining
from edge.checkpoint import PAIRS_KEY
from edge.data import Table
from edge.errors import DataError
from edge.tasks import Task

if TYPE_CHECKING:
    from distill.data.batches import Samples, Targets
    from distill.students import Student, Teacher


class TextClassificationTraining(HeadTraining):
    """Classes, or a score, of a text or a pair."""

    names_classes = True
    needs_labels = False
    allows_own_vocabulary = True

    def check_tables(self, train: Table, held_out: Table) -> None:
        has = {False: "one text", True: "pairs of texts"}
        learned, other = (has[table.pairs is not None] for table in (train, held_out))
        if learned != other:
            raise DataError(
                f"{held_out.source} has {other} in each row, and {train.source} {learned}: name "
                "the columns of both with --text-column and --pair-column"
            )

    def check_targets(self, table: Table, targets: Targets) -> None:
        check_classes(table, targets, first_target(table))

    def student(
        self, spec: StudentSpec, teacher: Teacher | None, table: Table, **options: Any
    ) -> Student:
        student = super().student(spec, teacher, table, **options)
        # What it learns to read is told with it: evaluating it on anything else has no meaning.
        setattr(student.model.config, PAIRS_KEY, table.pairs is not None)
        if teacher is None:
            student.task.note_pairs(table)
        return student

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        """Texts and pairs are cut to the longest input."""
        from distill.augment import targets_of
        from distill.data.batches import Samples

        targets = targets_of(task, table, needed=False)
        return Samples(reader.texts(table), targets, reader.tokenizer)
