"""Everything a run needs, opened and checked before its first step."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.augment import Augmentation, augment, mix, targets_of
from distill.config import DistillConfig, Masking, Recipe, Stage
from edge.console import hush, step
from edge.data import Table
from edge.errors import ConfigError
from edge.storage import cache_folder
from edge.tasks import get_task

if TYPE_CHECKING:
    from distill.batches import Samples
    from distill.capture import Needs, Source
    from distill.evaluation import Judge
    from distill.objectives import Learner, Setting
    from distill.spec import StudentSpec
    from distill.students import Student, Teacher
    from edge.checkpoint import Checkpoint
    from edge.tokenization import Tokenizer

_DEFAULT_MAX_LENGTH = 128
_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers")
# What may differ between an interrupted run and the one that continues it.
_OF_NO_ACCOUNT = {"output", "threads", "save_seconds", "augment_folder"}


@dataclass(frozen=True)
class Inputs:
    """The files and models of a run. held_out: the rows it is evaluated on; spec: the student's."""

    config: DistillConfig
    teacher: Teacher | None
    student: Student
    table: Table
    held_out: Table | None
    max_length: int
    spec: StudentSpec

    def setting(self) -> Setting:
        """What the terms of a stage must know of the two models."""
        from distill.objectives import Setting, Shape

        return Setting(
            student=Shape.of(self.student.model.config),
            teacher=Shape.of(self.teacher.model.config) if self.teacher else None,
            problem_type=self.student.task.problem_type,
            task=self.student.task.name,
        )

    def learner(self, stage: Stage) -> Learner:
        """The student with the terms and companions of a stage."""
        from distill.objectives import Learner

        return Learner(self.student.model, stage, self.setting(), self._new_student)

    def _new_student(self, spec: str | None, number: int) -> Any:
        """Another model for the student's task, with random weights of its own."""
        from distill.spec import parse_spec

        parsed = parse_spec(spec) if spec else self.spec
        return _build(
            self.config, parsed, self.teacher, self.table, self.config.seed + number
        ).model

    def tokenizer(self) -> Tokenizer:
        """What both models read texts with."""
        from edge.tokenization import Tokenizer, describe

        text, info = describe(self.student.tokenizer, folder=self.student.checkpoint.path)
        return Tokenizer.from_text(text, info)


@dataclass(frozen=True)
class Texts:
    """What a stage trains on: the labelled rows, then those of its augmentations."""

    table: Table
    samples: Samples


@dataclass(frozen=True)
class Run:
    """texts, needs: by stage, what it trains on and what its teacher says beside answers."""

    recipe: Recipe
    inputs: Inputs
    texts: dict[str, Texts]
    needs: dict[str, Needs]
    judge: Judge | None
    fingerprint: dict[str, Any]

    def source(self, stage: Stage) -> Source | None:
        """Who answers for the teacher in a stage; a cache is filled first if it is not there."""
        from distill.capture import LiveTeacher
        from distill.teachers import cached_teacher, identify

        if not stage.needs_teacher:
            return None
        teacher, config = self.inputs.teacher, self.inputs.config
        texts, needs = self.texts[stage.name], self.needs[stage.name]
        assert teacher is not None
        if config.teacher_cache is None:
            return LiveTeacher(teacher.model, needs)
        identity = identify(
            teacher, texts.table, max_length=self.inputs.max_length, bf16=config.bf16
        )
        # Stages that train on the same texts share a folder.
        alike = (self.needs[name] for name, other in self.texts.items() if other is texts)
        return cached_teacher(
            config.teacher_cache / identity.data[:16],
            teacher,
            texts.samples,
            needs,
            identity=identity,
            keep=needs.union(*alike),
        )


def prepare(config: DistillConfig, recipe: Recipe) -> Run:
    """Open and check every input; nothing is written but augmented texts, to their folder.

    Raises UserError for what does not fit together, of every stage.
    """
    inputs = _open(config, recipe)
    table, held_out = inputs.table, inputs.held_out
    judge = _judge(inputs)
    needs = {stage.name: _needs(inputs, stage) for stage in recipe.stages}
    texts = _texts(inputs, recipe)
    fingerprint = {
        "config": config.model_dump(mode="json", exclude=_OF_NO_ACCOUNT),
        "recipe": recipe.model_dump(mode="json"),
        "teacher": inputs.teacher.checkpoint.weights_sha256 if inputs.teacher else None,
        "student": _hash_weights(inputs.student.model),
        "train": _hash(table),
        "eval": _hash(held_out) if held_out else None,
        "augmented": {s.name: _hash(texts[s.name].table) for s in recipe.stages if s.augment},
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
    return Run(recipe, inputs, texts, needs, judge, fingerprint)


def _open(config: DistillConfig, recipe: Recipe) -> Inputs:
    from distill.spec import parse_spec
    from distill.students import TASK

    spec = parse_spec(config.student or recipe.student)
    checkpoint = _open_teacher(config)
    task = checkpoint.task if checkpoint else get_task(TASK)
    table = task.read(config.train, columns=config.columns)
    held_out = task.read(config.eval, columns=config.columns) if config.eval else None
    with step("loading"):
        _set_threads(config.threads)
        teacher = _load_teacher(checkpoint) if checkpoint else None
        student = _build(config, spec, teacher, table, config.seed)
    length = _max_length(config, teacher, student)
    return Inputs(config, teacher, student, table, held_out, length, spec)


def _build(
    config: DistillConfig, spec: StudentSpec, teacher: Teacher | None, table: Table, seed: int
) -> Student:
    from distill.students import build_student

    return build_student(
        spec,
        teacher,
        table,
        seed=seed,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )


def _needs(inputs: Inputs, stage: Stage) -> Needs:
    """What a stage asks of its teacher; raises ConfigError for terms that do not fit the models."""
    return inputs.learner(stage).needs


def _texts(inputs: Inputs, recipe: Recipe) -> dict[str, Texts]:
    """By stage, what it trains on; stages that are augmented and masked alike share it."""
    made: dict[Any, Texts] = {}
    for stage in recipe.stages:
        key = (stage.augment, stage.masking)
        if key not in made:
            own = _own(inputs, stage.masking)
            made[key] = _augmented(inputs, stage.augment) if stage.augment else own
    return {stage.name: made[stage.augment, stage.masking] for stage in recipe.stages}


def _own(inputs: Inputs, masking: Masking | None) -> Texts:
    """The rows of the data file, checked."""
    from distill.rows import check_variety, samples_of

    task, table, config = inputs.student.task, inputs.table, inputs.config
    if config.teacher_cache is not None and task.name == "fill-mask":
        raise ConfigError(
            "other tokens are hidden in every epoch, so the teacher has to be asked each time: "
            "leave out --teacher-cache"
        )
    samples = samples_of(
        task,
        table,
        inputs.tokenizer(),
        max_length=inputs.max_length,
        masking=masking,
        seed=config.seed,
    )
    check_variety(task, table, samples.targets)
    return Texts(table, samples)


def _augmented(inputs: Inputs, methods: tuple[Augmentation, ...]) -> Texts:
    """The labelled rows and new ones; no row of the evaluation is among them."""
    from distill.batches import Samples

    task, teacher, table = inputs.student.task, inputs.teacher, inputs.table
    assert teacher is not None
    extra = [
        augment(
            table,
            method,
            task=task,
            teacher=teacher,
            folder=inputs.config.augment_folder or cache_folder() / "texts",
            exclude=[inputs.held_out] if inputs.held_out else [],
        )
        for method in methods
    ]
    mixed = mix(table, *extra)
    tokenizer = inputs.tokenizer()
    encodings = tokenizer.encode(mixed.texts, mixed.pairs, max_length=inputs.max_length)
    return Texts(mixed, Samples(encodings, targets_of(task, mixed), tokenizer))


def _judge(inputs: Inputs) -> Judge | None:
    """Measures models on the evaluation's rows, where there are any."""
    from distill.evaluation import Judge

    if inputs.held_out is None:
        return None
    task, tokenizer = inputs.student.task, inputs.tokenizer()
    examples = task.examples(inputs.held_out, tokenizer, max_length=inputs.max_length)
    return Judge(task, examples, tokenizer)


def _open_teacher(config: DistillConfig) -> Checkpoint | None:
    """The teacher's checkpoint, not loaded; raises ConfigError for a task nobody can learn here."""
    if config.teacher is None:
        return None
    from distill.students import TASKS
    from edge.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(
        config.teacher,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )
    if checkpoint.task.name not in TASKS:
        raise ConfigError(
            f"teacher {config.teacher} does {checkpoint.task.name}: only "
            f"{', '.join(TASKS[:-1])} and {TASKS[-1]} can be distilled"
        )
    return checkpoint


def _load_teacher(checkpoint: Checkpoint) -> Teacher:
    from distill.students import Teacher
    from edge.checkpoint import load_model, load_tokenizer

    with hush():
        return Teacher(checkpoint, load_model(checkpoint), load_tokenizer(checkpoint))


def _max_length(config: DistillConfig, teacher: Teacher | None, student: Student) -> int:
    from edge.checkpoint import max_length

    limit = max_length(student.checkpoint, student.tokenizer)
    if teacher is not None:
        limit = min(limit, max_length(teacher.checkpoint, teacher.tokenizer))
    if config.max_length is not None and config.max_length > limit:
        raise ConfigError(
            f"--max-length {config.max_length} is more than the {limit} tokens the model can read"
        )
    return config.max_length or min(_DEFAULT_MAX_LENGTH, limit)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _hash(table: Table) -> str:
    rows = [table.texts, table.pairs, table.targets, table.words]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
