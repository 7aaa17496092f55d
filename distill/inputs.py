"""Everything a run needs, opened and checked before its first step."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.data.datasets import Texts, texts_of
from distill.recipe.config import DEFAULT_RECIPE, DistillConfig, Recipe, Stage
from distill.recipe.terms import TEACHER, Name, teacher_names
from distill.students import Student, Teacher
from distill.students.base import tokenizer_of
from distill.tasks import DEFAULT_TASK, TASKS, TaskTraining, task_training
from distill.tasks.heads import check_head
from edge.console import hush, say, step
from edge.data import Table
from edge.data.values import row_error
from edge.errors import ConfigError, unknown_name
from edge.provenance import Description, describe, versions
from edge.tasks import Task, get_task
from edge.tasks.summary import say_understood

if TYPE_CHECKING:
    from distill.objectives import Learner, Setting
    from distill.recipe.student import StudentSpec
    from distill.signals.capture import Needs, Source
    from distill.training.evaluation import Judge
    from edge.checkpoint.checkpoint import Checkpoint
    from edge.tokenization import Tokenizer

_DEFAULT_MAX_LENGTH = 128


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
        student = _build(self.config, parsed, teachers[0], self.table, self.config.seed, task)
        return replace(self, teachers=teachers, student=student, spec=parsed)

    def _new_student(self, spec: str | None, number: int) -> Any:
        """Another model for the student's task, with random weights of its own."""
        from distill.recipe.student import parse_spec

        parsed = parse_spec(spec) if spec else self.spec
        if parsed.source is None and parsed.vocabulary is None:
            parsed = parsed.model_copy(update={"vocabulary": self.spec.vocabulary})
        seed, task = self.config.seed + number, self.student.task.name
        other = _build(self.config, parsed, self.teacher, self.table, seed, task)
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


@dataclass(frozen=True)
class Run:
    """texts, needs: by stage, what it trains on and what teachers say beside answers, by name."""

    recipe: Recipe
    inputs: Inputs
    texts: dict[str, Texts]
    needs: dict[str, dict[Name, Needs]]
    judge: Judge | None
    fingerprint: dict[str, Any]

    @property
    def teacher_judge(self) -> Judge | None:
        """Measures teachers, in their own tokens."""
        return self.inputs.judge(self.inputs.teacher) if self.inputs.own_words else self.judge

    def sources(self, stage: Stage) -> dict[Name, Source]:
        """Who answers for each teacher in a stage; a cache is filled first if it is not there."""
        return {name: self._source(stage, name) for name in self.needs[stage.name]}

    def _source(self, stage: Stage, name: Name) -> Source:
        from distill.teachers import cached_teacher, identify
        from distill.teachers.sharding import live_teacher

        teacher, config = self.inputs.named_teachers[name], self.inputs.config
        texts, needs = self.texts[stage.name], self.needs[stage.name][name]
        if config.teacher_cache is None:
            return live_teacher(teacher.model, needs)
        table = texts.table
        if stage.translations:
            table = replace(table, pairs=table.texts)
        identity = identify(teacher, table, max_length=self.inputs.max_length, bf16=config.bf16)
        # Several teachers have a folder each; stages that train on the same texts share it.
        own = f"-{identity.teacher[:16]}" if len(self.inputs.teachers) > 1 else ""
        alike = (
            self.needs[stage_name].get(name, frozenset())
            for stage_name, other in self.texts.items()
            if other is texts
        )
        return cached_teacher(
            config.teacher_cache / f"{identity.data[:16]}{own}",
            teacher,
            texts.samples.read_by(name),
            needs,
            identity=identity,
            keep=needs.union(*alike),
        )


def prepare(config: DistillConfig, recipe: Recipe, *, like: Run | None = None) -> Run:
    """Open and check every input; nothing is written but augmented texts, to their folder.

    like: another run on the same data, whose texts are taken where both read them alike.
    Raises UserError for what does not fit together, of every stage; the links of a chain are
    checked one by one, as its student does not follow the run's own teacher.
    """
    inputs = _open(config, recipe)
    table, held_out = inputs.table, inputs.held_out
    inputs.training.check_teachers(table, recipe.stages, inputs.named_teachers)
    judge = inputs.judge()
    needs = {}
    if not recipe.assistants:
        needs = {stage.name: inputs.learner(stage).asked for stage in recipe.stages}
    alike = like and like.recipe.stages == recipe.stages and like.inputs.words == inputs.words
    texts = like.texts if like and alike else texts_of(inputs, recipe, tell=like is None)
    if judge and held_out and like is None:
        encodings, task = judge.examples.encodings, inputs.student.task
        say_understood(task, held_out, encodings, max_length=inputs.max_length)
    fingerprint = {
        "config": _settings(config),
        "recipe": describe(recipe),
        "teacher": _one_or_several([one.checkpoint.weights_sha256 for one in inputs.teachers]),
        "student": _hash_weights(inputs.student.model),
        "train": _hash(table),
        "eval": _hash(held_out) if held_out else None,
        "augmented": {s.name: _hash(texts[s.name].table) for s in recipe.stages if s.augment},
        "versions": versions("distill"),
    }
    return Run(recipe, inputs, texts, needs, judge, fingerprint)


def _settings(config: DistillConfig) -> Description:
    """What of a configuration must be the same where an interrupted run is continued."""
    # Baselines may be asked for later; the recipe counts as it runs, not as its file says.
    found = describe(config.model_copy(update={"baselines": False, "recipe": DEFAULT_RECIPE}))
    return {name: value for name, value in found.items() if name != "recipe"}


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


def _open(config: DistillConfig, recipe: Recipe) -> Inputs:
    spec, checkpoints, task, table, held_out = open_sources(config, recipe)
    if not reads_labels(config, recipe, task.name):
        _say_bare(table, recipe)
    with step("loading"):
        _set_threads(config.threads)
        teachers = _load_teachers(checkpoints)
        first = teachers[0] if teachers else None
        student = _build(config, spec, first, table, config.seed, task.name)
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


def _build(
    config: DistillConfig,
    spec: StudentSpec,
    teacher: Teacher | None,
    table: Table,
    seed: int,
    task: str,
) -> Student:
    return task_training(task).student(
        spec,
        teacher,
        table,
        task=task,
        seed=seed,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )


def _open_teachers(config: DistillConfig) -> tuple[Checkpoint, ...]:
    """The teachers' checkpoints, not loaded; raises CheckpointError when two disagree."""
    from distill.teachers.agreement import check_answers
    from edge.checkpoint.checkpoint import open_checkpoint

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
    from edge.checkpoint.checkpoint import load_model, load_tokenizer

    with hush():
        teachers = tuple(Teacher(c, load_model(c), load_tokenizer(c)) for c in checkpoints)
    check_words(teachers)
    return teachers


def _max_length(config: DistillConfig, teachers: tuple[Teacher, ...], student: Student) -> int:
    from edge.checkpoint.checkpoint import max_length

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


def _one_or_several(hashes: list[str]) -> list[str] | str | None:
    return hashes if len(hashes) > 1 else next(iter(hashes), None)


def _hash(table: Table) -> str:
    rows = [table.texts, table.pairs, table.targets, table.words]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
