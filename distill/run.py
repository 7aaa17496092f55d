"""One distillation from configuration to checkpoint."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import DistillConfig, Recipe, Stage, load_recipe
from edge.console import hush, say, step
from edge.data import Table, read_table
from edge.errors import ConfigError, DataError
from edge.storage import check_target, staged_folder, write_text

if TYPE_CHECKING:
    from distill.batches import Samples
    from distill.students import Student, Teacher

RECORD_FILE = "distillation.json"
LOG_FILE = "training_log.csv"
_DEFAULT_MAX_LENGTH = 128
_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers")
# They come first; the terms of the recipe and the metric follow.
_LOG_COLUMNS = ("stage", "step", "epoch", "learning_rate", "grad_norm", "loss")
Log = list[dict[str, Any]]


@dataclass(frozen=True)
class DistillResult:
    """What a run made. value, teacher_value: the metric on the eval file; None without one."""

    output: str
    recipe: str
    student: str
    metric: str | None
    value: float | None
    teacher_value: float | None
    parameters: int
    teacher_parameters: int | None
    train_samples: int
    eval_samples: int
    duration_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Run:
    """Everything opened and checked, before the first step."""

    config: DistillConfig
    recipe: Recipe
    teacher: Teacher | None
    student: Student
    train: Samples
    evaluated: Samples | None
    fingerprint: dict[str, Any]


def distil(config: DistillConfig) -> DistillResult:
    """Train a student as a recipe says and write a checkpoint that plain Transformers loads.

    Beside the weights, config and tokenizer the output holds `distillation.json` (what was done)
    and `training_log.csv` (each term over time). Run again after an interruption, it continues.
    Raises UserError for what cannot be done, TrainingError when a loss is not finite.
    """
    start = time.perf_counter()
    recipe = _recipe(config)
    check_target(config.output, replaces=is_distilled)
    with _quiet_libraries():
        run = _prepare(config, recipe)
        return _train_and_write(run, start)


def is_distilled(path: Path) -> bool:
    """Whether a folder was written by `distil`."""
    return (path / RECORD_FILE).is_file()


def _recipe(config: DistillConfig) -> Recipe:
    """The recipe with this run's settings in place of its own."""
    recipe = load_recipe(config.recipe)
    if recipe.needs_teacher and config.teacher is None:
        raise ConfigError(
            f"recipe '{recipe.name}' learns from a teacher: name it with --teacher, "
            "or use --recipe finetune"
        )
    overrides = config.stage_overrides()
    if config.epochs is not None:
        overrides.setdefault("max_steps", None)
    stages = tuple(stage.model_copy(update=overrides) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages})


def _prepare(config: DistillConfig, recipe: Recipe) -> _Run:
    """Open and check every input; nothing is written."""
    from distill.spec import parse_spec
    from distill.students import build_student

    spec = parse_spec(config.student or recipe.student)
    table = read_table(config.train, columns=config.columns)
    held_out = read_table(config.eval, columns=config.columns) if config.eval else None
    with step("loading"):
        _set_threads(config.threads)
        teacher = _open_teacher(config)
        student = build_student(
            spec,
            teacher,
            table,
            seed=config.seed,
            allow_pickle=config.allow_pickle,
            trust_remote_code=config.trust_remote_code,
        )
    max_length = _max_length(config, teacher, student)
    train = _samples(table, student, max_length)
    _check_variety(table, train)
    fingerprint = {
        "config": config.model_dump(mode="json", exclude={"output", "threads", "save_seconds"}),
        "recipe": recipe.model_dump(mode="json"),
        "teacher": teacher.checkpoint.weights_sha256 if teacher else None,
        "student": _hash_weights(student.model),
        "train": _hash(table),
        "eval": _hash(held_out) if held_out else None,
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
    evaluated = _samples(held_out, student, max_length) if held_out else None
    return _Run(config, recipe, teacher, student, train, evaluated, fingerprint)


def _train_and_write(run: _Run, start: float) -> DistillResult:
    from distill.evaluation import score
    from distill.resume import TrainingState
    from edge.checkpoint import count_parameters

    config, student, teacher = run.config, run.student, run.teacher
    metric = value = teacher_value = None
    state = TrainingState(config.output)
    with state.kept(run.fingerprint):
        if teacher and run.evaluated:
            with step("evaluating the teacher"):
                _, teacher_value = score(teacher.model, student.task, run.evaluated)
        log = [
            {"stage": stage.name, **row}
            for index, stage in enumerate(run.recipe.stages)
            for row in _run_stage(run, stage, state, index)
        ]
        student.model.eval()
        if run.evaluated:
            metric, value = score(student.model, student.task, run.evaluated)
        result = DistillResult(
            output=str(config.output),
            recipe=run.recipe.name,
            student=config.student or run.recipe.student,
            metric=metric,
            value=value,
            teacher_value=teacher_value,
            parameters=count_parameters(student.model),
            teacher_parameters=count_parameters(teacher.model) if teacher else None,
            train_samples=len(run.train),
            eval_samples=len(run.evaluated) if run.evaluated else 0,
            duration_s=round(time.perf_counter() - start, 3),
        )
        output = config.output
        with staged_folder(output, replaces=is_distilled) as folder:
            _write(folder, run, log, result)
    return result


def _run_stage(run: _Run, stage: Stage, state: Any, index: int) -> Log:
    """Train one stage, or take over what an earlier run of it left; gives its log."""
    import transformers

    from distill.capture import LiveTeacher
    from distill.objectives import Learner, Setting, Shape
    from distill.trainer import DistillTrainer

    teacher, student = run.teacher, run.student
    setting = Setting(
        student=Shape.of(student.model.config),
        teacher=Shape.of(teacher.model.config) if teacher else None,
        problem_type=student.task.problem_type,
    )
    # A stage starts alike whether those before it ran just now or long ago.
    transformers.set_seed(run.config.seed)
    learner = Learner(student.model, stage, setting)
    folder: Path = state.stage(index, stage.name)
    log: Log | None = state.finished(folder)
    if log is not None:
        state.load(learner, folder)
        return log
    live = teacher if stage.needs_teacher else None
    trainer = DistillTrainer(
        learner,
        stage=stage,
        samples=run.train,
        task=student.task,
        source=LiveTeacher(live.model, learner.needs) if live else None,
        folder=folder,
        evaluated=run.evaluated,
        seed=run.config.seed,
        bf16=run.config.bf16,
        save_seconds=run.config.save_seconds,
    )
    last = state.last_checkpoint(folder)
    done = trainer.train(resume_from_checkpoint=str(last) if last else None)
    say(
        f"{stage.name}: {done.global_step} steps, "
        f"{done.metrics['train_samples_per_second']:.0f} samples/s"
    )
    state.finish(trainer, folder)
    history: Log = trainer.state.log_history
    return history


def _open_teacher(config: DistillConfig) -> Teacher | None:
    if config.teacher is None:
        return None
    from distill.students import TASK, Teacher
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint

    checkpoint = open_checkpoint(
        config.teacher,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )
    if checkpoint.task.name != TASK:
        raise ConfigError(
            f"teacher {config.teacher} does {checkpoint.task.name}: only {TASK} can be distilled"
        )
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


def _samples(table: Table, student: Student, max_length: int) -> Samples:
    from distill.batches import Samples
    from edge.tokenization import Tokenizer, describe

    text, info = describe(student.tokenizer, folder=student.checkpoint.path)
    targets = student.task.targets(table)
    return Samples(table, targets, Tokenizer.from_text(text, info), max_length=max_length)


def _check_variety(table: Table, samples: Samples) -> None:
    """A constant target teaches nothing, and is most often the wrong column."""
    if bool((samples.targets == samples.targets[0]).all()):
        raise DataError(
            f"{table.source} has one class only, {(table.targets or [None])[0]!r} in every row: "
            "training needs at least two"
        )


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _write(folder: Path, run: _Run, log: Log, result: DistillResult) -> None:
    with hush():
        run.student.model.save_pretrained(folder)
        run.student.tokenizer.save_pretrained(folder)
    # Transformers makes weights private to their owner.
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)
    record = {
        **result.to_dict(),
        "seed": run.config.seed,
        "copied_layers": run.student.copied_layers,
        "made_from": run.fingerprint,
    }
    write_text(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    _write_log(folder / LOG_FILE, log)


def _write_log(path: Path, log: Log) -> None:
    # The last row of a stage sums it up for Trainer; it is not a measurement of its own.
    rows = [row for row in log if "train_runtime" not in row]
    names = sorted({name for row in rows for name in row} - set(_LOG_COLUMNS))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*_LOG_COLUMNS, *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _hash(table: Table) -> str:
    rows = [table.texts, table.pairs, table.targets]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep Transformers' advice to its own users off the screen."""
    with hush():
        from transformers.utils import logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
