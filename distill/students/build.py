"""Building a student from a SPEC and, where there is one, its teacher."""

from __future__ import annotations

from typing import Any

from distill.recipe.student import StudentSpec
from distill.students.added import added
from distill.students.base import Student, Teacher
from distill.students.derived import from_teacher
from distill.students.opened import from_source
from distill.students.vocabulary import with_vocabulary
from distill.tasks import DEFAULT_TASK
from edge.data import Table
from edge.errors import CheckpointError, ConfigError


def build_student(
    spec: StudentSpec,
    teacher: Teacher | None,
    table: Table,
    *,
    seed: int,
    task: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Student:
    """A float32 student; `table` gives the labels where neither teacher nor config has them.

    task: what it is for, where no teacher says so.

    Raises ConfigError for a shape that cannot be built, CheckpointError for a source that cannot
    be used or disagrees with the teacher, UserError for an architecture without a layer list.
    """
    import transformers

    if spec.plus is not None:
        options: dict[str, Any] = {
            "task": task,
            "allow_pickle": allow_pickle,
            "trust_remote_code": trust_remote_code,
        }
        one = spec.model_copy(update={"plus": None})
        first = build_student(one, teacher, table, seed=seed, **options)
        return added(first, build_student(spec.plus, teacher, table, seed=seed + 1, **options))
    transformers.set_seed(seed)
    if spec.source is None:
        if teacher is None:
            raise ConfigError(
                "a student described by its layers is made of a teacher: name it with --teacher, "
                "or give --student a checkpoint folder or a config.json"
            )
        student = from_teacher(spec, teacher, table)
        if spec.vocabulary is not None:
            return with_vocabulary(student, teacher, table, spec.vocabulary)
        return student
    student = from_source(
        spec.source,
        teacher,
        table,
        task=teacher.checkpoint.task.name if teacher else task or DEFAULT_TASK,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    vocabulary = len(student.tokenizer)
    if vocabulary > student.model.config.vocab_size:
        raise CheckpointError(
            f"student {spec.source} embeds {student.model.config.vocab_size} tokens where its "
            f"tokenizer has {vocabulary}: set vocab_size to {vocabulary} in its config.json"
        )
    return student
