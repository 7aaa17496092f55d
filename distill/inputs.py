"""The files and models of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.recipe.config import DistillConfig, Stage
from distill.recipe.terms import TEACHER, Name, teacher_names
from distill.students import Student, Teacher
from distill.students.base import tokenizer_of
from distill.tasks import TaskTraining, task_training
from edge.data import Table
from edge.errors import ConfigError

if TYPE_CHECKING:
    from distill.objectives import Learner, Setting
    from distill.recipe.student import StudentSpec
    from distill.training.evaluation import Judge
    from edge.tokenization import Tokenizer


@dataclass(frozen=True)
class Inputs:
    """The files and models of a run. held_out: the rows it is evaluated on; spec: the student's."""

    config: DistillConfig
    teachers: tuple[Teacher, ...]
    student: Student
    table: Table
    held_out: Table | None
    max_length: int
    spec: StudentSpec

    @property
    def teacher(self) -> Teacher | None:
        """The first of them, which a student is made of."""
        return self.teachers[0] if self.teachers else None

    @property
    def named_teachers(self) -> dict[Name, Teacher]:
        """By the names that terms use."""
        return dict(zip(teacher_names(len(self.teachers)), self.teachers, strict=True))

    @property
    def training(self) -> TaskTraining:
        """The training side of the student's task."""
        return task_training(self.student.task.name)

    @cached_property
    def _task_settings(self) -> dict[str, Any]:
        return self.training.settings(
            self.student, self.named_teachers, self.table, self.max_length
        )

    def setting(self) -> Setting:
        """What the terms of a stage must know of the models."""
        from distill.objectives import Setting, Shape

        shapes = {name: Shape.of(one.model.config) for name, one in self.named_teachers.items()}
        return Setting(
            student=Shape.of(self.student.model.config),
            teacher=shapes.pop(TEACHER, None),
            problem_type=self.student.task.problem_type,
            task=self.student.task.name,
            others=shapes,
            same_words=not self.own_words,
            **self._task_settings,
        )

    def learner(self, stage: Stage) -> Learner:
        """The student with the terms and companions of a stage."""
        from distill.objectives import Learner

        return Learner(
            self.student.model,
            stage,
            self.setting(),
            self._new_student,
            self.teacher.model if self.teacher else None,
        )

    def taught_by(self, teachers: tuple[Teacher, ...], spec: str) -> Inputs:
        """The same with another student, which is made of the first of other teachers."""
        from distill.recipe.student import parse_spec

        parsed = parse_spec(spec)
        task = self.student.task.name
        student = new_student(self.config, parsed, teachers[0], self.table, self.config.seed, task)
        return replace(self, teachers=teachers, student=student, spec=parsed)

    def _new_student(self, spec: str | None, number: int) -> Any:
        """Another model for the student's task, with random weights of its own."""
        from distill.recipe.student import parse_spec

        parsed = parse_spec(spec) if spec else self.spec
        if parsed.source is None and parsed.vocabulary is None:
            parsed = parsed.model_copy(update={"vocabulary": self.spec.vocabulary})
        seed, task = self.config.seed + number, self.student.task.name
        other = new_student(self.config, parsed, self.teacher, self.table, seed, task)
        if other.tokenizer.get_vocab() != self.student.tokenizer.get_vocab():
            raise ConfigError(
                f"companion '{spec}' would be given the student's tokens, and has others: give it "
                "the vocabulary of the student"
            )
        return other.model

    @cached_property
    def own_words(self) -> bool:
        """Whether the student reads other tokens than its teachers."""
        ours = self.student.tokenizer.get_vocab()
        # Of several, all read alike.
        return self.spec.vocabulary is not None and any(
            teacher.tokenizer.get_vocab() != ours for teacher in self.teachers[:1]
        )

    @property
    def words(self) -> list[dict[str, int]]:
        """The vocabulary of the student, and of each teacher where theirs is another."""
        readers: list[Student | Teacher] = [self.student]
        readers += self.teachers if self.own_words else ()
        return [reader.tokenizer.get_vocab() for reader in readers]

    def tokenizer(self, reader: Student | Teacher | None = None) -> Tokenizer:
        """What the student reads texts with, or another reader."""
        return tokenizer_of(reader or self.student)

    def judge(self, reader: Teacher | None = None) -> Judge | None:
        """The evaluator on the held-out rows as the student reads them, or another reader."""
        if self.held_out is None:
            return None
        tokenizer, teachers = self.tokenizer(reader), self.named_teachers
        return self.training.judge(
            self.student.task, self.held_out, tokenizer, teachers, self.max_length
        )


def new_student(
    config: DistillConfig,
    spec: StudentSpec,
    teacher: Teacher | None,
    table: Table,
    seed: int,
    task: str,
) -> Student:
    """Build a student for a task, as a SPEC and the options of a run say."""
    return task_training(task).student(
        spec,
        teacher,
        table,
        task=task,
        seed=seed,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )
