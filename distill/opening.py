"""The opening of sources: checkpoints, data files, tokenizers; what does not fit is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distill.inputs import Inputs, new_student
from distill.recipe.config import DistillConfig, Recipe
from distill.students import Student, Teacher
from distill.tasks import DEFAULT_TASK, TASKS, task_training
from distill.tasks.heads import check_head
from edge.console import hush, say, step
from edge.data import Table
from edge.data.values import row_error
from edge.errors import ConfigError, unknown_name
from edge.tasks import Task, get_task

if TYPE_CHECKING:
    from distill.recipe.student import StudentSpec
    from edge.checkpoint import Checkpoint

_DEFAULT_MAX_LENGTH = 128


class Sources(NamedTuple):
    """What is read of a run before a model is loaded. task: what the student is for."""

    spec: StudentSpec
    checkpoints: tuple[Checkpoint, ...]
    task: Task
    table: Table
    held_out: Table | None


def open_sources(config: DistillConfig, recipe: Recipe) -> Sources:
    """Open and check teachers and data files; raises UserError for what does not fit together."""
    from distill.recipe.student import parse_spec

    spec = parse_spec(config.student or recipe.student)
    checkpoints = _open_teachers(config)
    task = _task_of(config, recipe, checkpoints)
    if checkpoints and (config.task or recipe.task) is None:
        check_head(config, checkpoints[0].source, checkpoints[0].task.name)
    table = _read_rows(config, recipe, task)
    held_out = task.read(config.eval, columns=config.columns) if config.eval else None
    if held_out is not None:
        task_training(task.name).check_tables(table, held_out)
    return Sources(spec, checkpoints, task, table, held_out)


def open_inputs(config: DistillConfig, recipe: Recipe) -> Inputs:
    """Open sources, load the teachers and build the student; raises UserError as both do."""
    spec, checkpoints, task, table, held_out = open_sources(config, recipe)
    if not reads_labels(config, recipe, task.name):
        _say_bare(table, recipe)
    with step("loading"):
        _set_threads(config.threads)
        teachers = _load_teachers(checkpoints)
        first = teachers[0] if teachers else None
        student = new_student(config, spec, first, table, config.seed, task.name)
    if spec.vocabulary is not None:
        _say_vocabulary(spec.vocabulary, student)
    length = _max_length(config, teachers, student)
    return Inputs(config, teachers, student, table, held_out, length, spec)


def reads_labels(config: DistillConfig, recipe: Recipe, task: str) -> bool:
    """Whether the data file needs labels: for the recipe, for baselines, or to know its words."""
    needed = task_training(task).needs_labels
    return needed or config.baselines or recipe.reads_labels or not config.teachers


def _read_rows(config: DistillConfig, recipe: Recipe, task: Task) -> Table:
    """The rows to train on, whose labels may be missing where nothing learns from them."""
    if reads_labels(config, recipe, task.name):
        table = task.read_training(config.train, columns=config.columns)
        bare = [row for row, value in enumerate(table.targets or ()) if value is None]
        if bare and not task_training(task.name).allows_unlabelled_rows:
            raise row_error(
                table,
                bare[0],
                f"has no label ({len(bare)} of {len(table)} rows), which recipe {recipe.name} "
                "learns from: leave such rows out, bring them with --unlabelled, or take a recipe "
                "without labels",
                "",
            )
        return table
    return task.read(config.train, columns=config.columns, targets=False)


def _say_bare(table: Table, recipe: Recipe) -> None:
    count = len(table) if table.targets is None else table.targets.count(None)
    if count:
        say(
            f"{table.source}: {count:,} of {len(table):,} rows have no label, which recipe "
            f"{recipe.name} does not need"
        )


def _say_vocabulary(asked: int, student: Student) -> None:
    count = len(student.tokenizer)
    fewer = "" if count == asked else f", as these texts have no more word pieces than make {count}"
    say(f"vocabulary: {count} of {asked} tokens{fewer}")


def _task_of(config: DistillConfig, recipe: Recipe, checkpoints: tuple[Checkpoint, ...]) -> Task:
    """The student's task; raises ConfigError where nothing can teach it."""
    wanted = config.task or recipe.task
    if checkpoints:
        name = wanted if wanted in TASKS else checkpoints[0].task.name
        return task_training(name).task_of(config, recipe, checkpoints)
    if wanted is not None and wanted not in TASKS:
        raise unknown_name("task", wanted, TASKS)
    return get_task(wanted or DEFAULT_TASK)


def _open_teachers(config: DistillConfig) -> tuple[Checkpoint, ...]:
    """The teachers' checkpoints, not loaded; raises CheckpointError when two disagree."""
    from distill.teachers.agreement import check_answers
    from edge.checkpoint import open_checkpoint

    checkpoints = tuple(
        open_checkpoint(
            source, allow_pickle=config.allow_pickle, trust_remote_code=config.trust_remote_code
        )
        for source in config.teachers
    )
    check_answers(checkpoints)
    return checkpoints


def _load_teachers(checkpoints: tuple[Checkpoint, ...]) -> tuple[Teacher, ...]:
    from distill.teachers.agreement import check_words
    from edge.checkpoint import load_model, load_tokenizer

    with hush():
        teachers = tuple(Teacher(c, load_model(c), load_tokenizer(c)) for c in checkpoints)
    check_words(teachers)
    return teachers


def _max_length(config: DistillConfig, teachers: tuple[Teacher, ...], student: Student) -> int:
    from edge.checkpoint import max_length

    own = max_length(student.checkpoint, student.tokenizer)
    theirs = min((max_length(one.checkpoint, one.tokenizer) for one in teachers), default=own)
    limit = min(own, theirs)
    if config.max_length is None and own < min(theirs, _DEFAULT_MAX_LENGTH):
        raise ConfigError(
            f"the student reads {own} tokens where its teacher reads {theirs}: say --max-length "
            f"{own} to train on texts cut there, or give it more positions"
        )
    if config.max_length is not None and config.max_length > limit:
        raise ConfigError(
            f"--max-length {config.max_length} is more than the {limit} tokens the model can read"
        )
    return config.max_length or min(_DEFAULT_MAX_LENGTH, limit)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
