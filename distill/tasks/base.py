"""The interface between training and a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from distill.recipe.config import DistillConfig, Recipe, Stage
from distill.recipe.student import StudentSpec
from distill.recipe.terms import Name
from distill.recipe.tokens import Masking
from distill.signals.outputs import Reading
from edge.checkpoint import Checkpoint
from edge.data import Table
from edge.errors import ConfigError, DataError
from edge.tasks import Task
from edge.tokenization import Encoding, Tokenizer

if TYPE_CHECKING:
    from distill.data.batches import Samples, Targets
    from distill.data.mixing import Mixer
    from distill.data.views import View
    from distill.students.base import Student, Teacher
    from distill.training.evaluation import Judge


class RowReader(NamedTuple):
    """The settings by which rows become samples.

    masking: the tokens to mask, where the task masks some; seed: of their draw. mixer: reads words
    in two vocabularies.
    """

    tokenizer: Tokenizer
    max_length: int
    masking: Masking
    seed: int
    mixer: Mixer | None

    def texts(self, table: Table) -> Sequence[Encoding]:
        """The text or pair of each row, cut to `max_length` tokens."""
        if self.mixer is not None:
            return self.mixer.read(table, self.max_length)
        return self.tokenizer.encode(table.texts, table.pairs, max_length=self.max_length)


class TaskTraining:
    """One task as it is trained; it holds no state.

    reading: how outputs and labels are compared.
    """

    reading: ClassVar[Reading] = Reading()
    # Whether a linear layer for a few classes, trained on labelled rows, gives the answers.
    has_small_head: ClassVar[bool] = True
    # Whether classes have names, in the data or in config.json.
    names_classes: ClassVar[bool] = False
    # num_labels of config.json, where the task decides it.
    label_count: ClassVar[int | None] = None
    # Whether every recipe reads the labels of the data file.
    needs_labels: ClassVar[bool] = True
    # Whether rows without a label may stand among labelled ones.
    allows_unlabelled_rows: ClassVar[bool] = False
    # Whether the samples have masked tokens, other ones in each epoch.
    masks_tokens: ClassVar[bool] = False
    # Whether a student can have a vocabulary of its own.
    allows_own_vocabulary: ClassVar[bool] = False

    def task_of(
        self, config: DistillConfig, recipe: Recipe, checkpoints: Sequence[Checkpoint]
    ) -> Task:
        """The student's task; raises ConfigError where the teachers cannot teach it."""
        task = checkpoints[0].task
        if config.task not in (None, task.name):
            raise ConfigError(
                f"--task {config.task}: the teacher does {task.name}, which is what a student "
                "learns: leave out --task, or take another teacher"
            )
        if recipe.task not in (None, task.name):
            raise ConfigError(
                f"recipe '{recipe.name}' is for {recipe.task} and the teacher does {task.name}: "
                "take another recipe"
            )
        return task

    def check_tables(self, train: Table, held_out: Table) -> None:
        """Raise DataError where a student would be evaluated on something else than it learns."""

    def check_teachers(
        self, table: Table, stages: Sequence[Stage], teachers: Mapping[Name, Teacher]
    ) -> None:
        """Raise DataError for rows that a teacher cannot read."""

    def check_stage(self, stage: Stage, table: Table, samples: Samples) -> None:
        """Raise DataError for rows that a term cannot learn from, ConfigError for a wrong term."""

    def check_targets(self, table: Table, targets: Targets) -> None:
        """Raise DataError for targets that teach nothing."""

    def student(
        self, spec: StudentSpec, teacher: Teacher | None, table: Table, **options: Any
    ) -> Student:
        """Build a student; options, and what raises: see `distill.students.build_student`."""
        raise NotImplementedError

    def settings(
        self, student: Student, teachers: Mapping[Name, Teacher], table: Table, max_length: int
    ) -> dict[str, Any]:
        """The fields of a Setting that only this task has."""
        return {}

    def samples(
        self,
        task: Task,
        table: Table,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        masking: Masking | None = None,
        seed: int = 0,
        mixer: Mixer | None = None,
    ) -> Samples:
        """The rows of `table` to train on, of at most `max_length` tokens each.

        Raises DataError when the table does not fit the task, ConfigError for `masking` where no
        token is masked. mixer: reads the words of texts, and of plain ones, in two vocabularies.
        """
        if masking is not None and not self.masks_tokens:
            raise ConfigError(f"masking is for fill-mask, {task.name} hides no tokens")
        return self.read(
            task, table, RowReader(tokenizer, max_length, masking or Masking(), seed, mixer)
        )

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        """The rows as samples, with their labels as targets."""
        raise NotImplementedError

    def views(
        self,
        table: Table,
        teachers: Mapping[Name, Teacher],
        max_length: int,
        *,
        own_words: bool,
        translations: bool,
    ) -> dict[Name, View]:
        """The rows as teachers read them, by name, for those that read others than the student.

        own_words: whether the student's tokens are others than the teachers'. translations:
        whether teachers read the first text in place of the second.
        """
        from distill.data.views import View
        from distill.students.base import tokenizer_of

        if not own_words:
            return {}
        # Several teachers have the same tokenizer.
        tokenizer = tokenizer_of(next(iter(teachers.values())))
        encodings = tokenizer.encode(table.texts, table.pairs, max_length=max_length)
        return dict.fromkeys(teachers, View(encodings, tokenizer))

    def judge(
        self,
        task: Task,
        table: Table,
        tokenizer: Tokenizer,
        teachers: Mapping[Name, Teacher],
        max_length: int,
    ) -> Judge:
        """The evaluator of models on the rows of `table`."""
        from distill.training.evaluation import Judge

        return Judge(task, task.examples(table, tokenizer, max_length=max_length), tokenizer)


def check_classes(table: Table, targets: Targets, first: Any) -> None:
    """Raise DataError for a constant target: it teaches nothing, and is often the wrong column.

    first: one of the data's targets, to be named.
    """
    from distill.losses.distributions import IGNORED

    values = np.concatenate(targets) if isinstance(targets, list) else np.asarray(targets)
    unknown = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else values == IGNORED
    values = values[~unknown.reshape(len(values), -1).any(-1)]
    if not len(values) or np.equal(values, values[0]).all():
        raise DataError(
            f"{table.source} has one class only, {first!r} in every row: "
            "training needs at least two"
        )


def first_target(table: Table) -> Any:
    """The first target that is known; None without one."""
    return next((value for value in table.targets or () if value is not None), None)
