"""One distillation from configuration to checkpoint."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import DistillConfig, Recipe, Stage, load_recipe
from edge.console import hush, say, step
from edge.errors import ConfigError
from edge.storage import check_target, staged_folder, write_text

if TYPE_CHECKING:
    from distill.prepare import Run

RECORD_FILE = "distillation.json"
LOG_FILE = "training_log.csv"
# They come first; the terms of the recipe and the metric follow.
_LOG_COLUMNS = ("stage", "step", "epoch", "learning_rate", "grad_norm", "loss")
Log = list[dict[str, Any]]


@dataclass(frozen=True)
class DistillResult:
    """What a run made. value, teacher_value: the metric on the eval file; None without one.

    train_samples: labelled rows; augmented ones are not counted.
    """

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


def distil(config: DistillConfig) -> DistillResult:
    """Train a student as a recipe says and write a checkpoint that plain Transformers loads.

    Beside the weights, config and tokenizer the output holds `distillation.json` (what was done)
    and `training_log.csv` (each term over time). Run again after an interruption, it continues.
    Raises UserError for what cannot be done, TrainingError when a loss is not finite.
    """
    from distill.prepare import prepare

    start = time.perf_counter()
    recipe = _recipe(config)
    check_target(config.output, replaces=is_distilled)
    with _quiet_libraries():
        run = prepare(config, recipe)
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
    if config.teacher_cache is not None and not recipe.needs_teacher:
        raise ConfigError(
            f"recipe '{recipe.name}' asks no teacher anything: leave out --teacher-cache"
        )
    overrides = config.stage_overrides()
    if config.epochs is not None:
        overrides.setdefault("max_steps", None)
    stages = tuple(stage.model_copy(update=overrides) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages})


def _train_and_write(run: Run, start: float) -> DistillResult:
    from distill.resume import TrainingState
    from edge.checkpoint import count_parameters

    inputs = run.inputs
    config, student, teacher = inputs.config, inputs.student, inputs.teacher
    metric = value = teacher_value = None
    state = TrainingState(config.output)
    with state.kept(run.fingerprint):
        if teacher and run.judge:
            with step("evaluating the teacher"):
                _, teacher_value = run.judge(teacher.model)
        log = [
            {"stage": stage.name, **row}
            for index, stage in enumerate(run.recipe.stages)
            for row in _run_stage(run, stage, state, index)
        ]
        student.model.eval()
        if run.judge:
            metric, value = run.judge(student.model)
        result = DistillResult(
            output=str(config.output),
            recipe=run.recipe.name,
            student=config.student or run.recipe.student,
            metric=metric,
            value=value,
            teacher_value=teacher_value,
            parameters=count_parameters(student.model),
            teacher_parameters=count_parameters(teacher.model) if teacher else None,
            train_samples=len(inputs.table),
            eval_samples=len(inputs.held_out) if inputs.held_out else 0,
            duration_s=round(time.perf_counter() - start, 3),
        )
        output = config.output
        with staged_folder(output, replaces=is_distilled) as folder:
            _write(folder, run, log, result)
    return result


def _run_stage(run: Run, stage: Stage, state: Any, index: int) -> Log:
    """Train one stage, or take over what an earlier run of it left; gives its log."""
    import transformers

    from distill.trainer import DistillTrainer

    config = run.inputs.config
    # A stage starts alike whether those before it ran just now or long ago.
    transformers.set_seed(config.seed)
    learner = run.inputs.learner(stage)
    folder: Path = state.stage(index, stage.name)
    log: Log | None = state.finished(folder)
    if log is not None:
        state.load(learner, folder)
        return log
    trainer = DistillTrainer(
        learner,
        stage=stage,
        samples=run.texts[stage.name].samples,
        source=run.source(stage),
        folder=folder,
        judge=run.judge,
        seed=config.seed,
        bf16=config.bf16,
        save_seconds=config.save_seconds,
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


def _write(folder: Path, run: Run, log: Log, result: DistillResult) -> None:
    with hush():
        run.inputs.student.model.save_pretrained(folder)
        run.inputs.student.tokenizer.save_pretrained(folder)
    # Transformers makes weights private to their owner.
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)
    record = {
        **result.to_dict(),
        "seed": run.inputs.config.seed,
        "copied_layers": run.inputs.student.copied_layers,
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
