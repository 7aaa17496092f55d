"""One distillation from configuration to checkpoint."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.assistants import Chain, with_assistants, with_words
from distill.recipe.config import DistillConfig, Recipe, load_recipe
from distill.recipe.unlabelled import tell_texts, with_texts
from distill.result import DistillResult
from distill.tasks import DEFAULT_TASK, TASKS
from distill.training import processes
from distill.training.resume import RECORD_FILE, TrainingState
from distill.training.states import records_of
from edge.console import hush, step
from edge.errors import ConfigError
from edge.storage import check_target, output_lock, staged_folder, write_text
from edge.tasks import get_task

if TYPE_CHECKING:
    from distill.objectives import Learner
    from distill.prepare import Run
    from edge.tasks import Task

LOG_FILE = "training_log.csv"
# They come first; the terms of the recipe and the metric follow.
_LOG_COLUMNS = ("stage", "step", "epoch", "learning_rate", "grad_norm", "loss")
Log = list[dict[str, Any]]


def distill(config: DistillConfig) -> DistillResult:
    """Train a student as a recipe says and write a checkpoint that plain Transformers loads.

    Beside the weights, config and tokenizer the output holds `distillation.json` (what was done)
    and `training_log.csv` (each term over time). Run again after an interruption, it continues.
    Started by a launcher in several processes, these share each batch and the main one writes.
    Raises UserError for what cannot be done, TrainingError when a loss is not finite.
    """
    from distill.prepare import prepare

    def ready() -> Run:
        recipe = _recipe(config)
        tell_texts(load_recipe(config.recipe), config.unlabelled)
        check_target(config.output, replaces=is_distilled)
        return prepare(config, recipe)

    start = time.perf_counter()
    if processes.count() == 1:
        _check_files(config)
    processes.join(bf16=config.bf16)
    with contextlib.ExitStack() as stack:
        processes.from_main(lambda: stack.enter_context(output_lock(config.output)))
        stack.enter_context(_quiet_libraries())
        return _train_and_write(processes.main_first(ready), start)


def _check_files(config: DistillConfig) -> None:
    """Refuse what can be refused of data files before Transformers is loaded."""
    from distill.opening import reads_labels
    from distill.tasks.heads import check_head
    from edge.checkpoint import glance

    recipe = load_recipe(config.recipe)
    wanted = config.task or recipe.task
    if config.teachers:
        task = glance(config.teachers[0])
    else:
        task = get_task(wanted or DEFAULT_TASK) if wanted is None or wanted in TASKS else None
    # A teacher of another task is refused before files are: `prepare` says why.
    if task is not None and wanted in (None, task.name):
        if config.teachers and wanted is None:
            check_head(config, config.teachers[0], task.name)
        labels = reads_labels(config, recipe, task.name)
        task.check_file(config.train, columns=config.columns, targets=labels, training=labels)
        if config.eval is not None:
            task.check_file(config.eval, columns=config.columns)


def check(config: DistillConfig) -> Task:
    """Raise the UserErrors of `distill` that need no model, and give what the student is for.

    Recipe, teachers and every data file are read.
    """
    from distill.opening import open_sources
    from distill.recipe.augmentations import Unlabelled
    from edge.data import read_table

    recipe = _recipe(config)
    _check_files(config)
    task = open_sources(config, recipe).task
    for method in (method for stage in recipe.all_stages for method in stage.augment):
        if isinstance(method, Unlabelled) and method.source is not None:
            read_table(method.source, columns=method.columns, targets=False)
    return task


def is_distilled(path: Path) -> bool:
    """Whether a folder was written by `distill`."""
    return (path / RECORD_FILE).is_file()


def _recipe(config: DistillConfig) -> Recipe:
    """The recipe with this run's settings in place of its own."""
    recipe = load_recipe(config.recipe)
    if recipe.needs_teacher and not config.teachers:
        raise ConfigError(
            f"recipe '{recipe.name}' learns from a teacher: name it with --teacher, "
            "or use --recipe finetune"
        )
    if config.teacher_cache is not None and not recipe.needs_teacher:
        raise ConfigError(
            f"recipe '{recipe.name}' asks no teacher anything: leave out --teacher-cache"
        )
    if config.assistants is not None:
        recipe = with_assistants(recipe, config.assistants)
    recipe = with_words(recipe, config.student or recipe.student)
    if recipe.assistants and not recipe.needs_teacher:
        raise ConfigError(
            f"recipe '{recipe.name}' asks no teacher, so nobody can pass on what one knows: "
            "leave out --assistants"
        )
    overrides = config.stage_overrides()
    if config.epochs is not None:
        overrides.setdefault("max_steps", None)
    recipe = recipe.with_stages(lambda stage: stage.model_copy(update=overrides))
    if config.early_stopping is not None:
        patience = {"early_stopping": config.early_stopping}
        recipe = recipe.with_stages(
            lambda stage: stage.model_copy(update=patience) if stage.teaches_answers else stage
        )
    recipe = with_texts(recipe, config.unlabelled)
    _check_measured(config, recipe)
    for stage in recipe.all_stages:
        processes.share_of(stage)
    if config.tensorboard is not None:
        from distill.training.tensorboard import check_tensorboard

        check_tensorboard()
    return recipe


def _check_measured(config: DistillConfig, recipe: Recipe) -> None:
    """Raise ConfigError for what needs the metric of a student, and there is none."""
    if config.early_stopping is not None and not any(
        stage.early_stopping for stage in recipe.all_stages
    ):
        raise ConfigError(
            f"no stage of recipe '{recipe.name}' teaches what a student answers, so no metric says "
            "when to stop: leave out --early-stopping"
        )
    if config.eval is None and any(stage.early_stopping for stage in recipe.all_stages):
        raise ConfigError(
            "early stopping looks at the metric after each epoch: name rows to measure on "
            "with --eval, or leave it out"
        )
    if config.eval is None and config.baselines:
        raise ConfigError("baselines are compared by a metric: name rows to measure on with --eval")


def _train_and_write(run: Run, start: float) -> DistillResult:
    from distill.baselines import Baselines
    from distill.training.evaluation import measure
    from distill.training.stages import train_stages
    from edge.checkpoint import count_parameters

    inputs = run.inputs
    config, student = inputs.config, inputs.student
    metric = value = None
    baselines = Baselines(run) if config.baselines else None
    state = TrainingState(config.output)
    with state.kept(run.fingerprint, resume=config.resume):
        teachers, assistants = _measured_teachers(run), None
        if run.recipe.assistants:
            chain = Chain(run, state.folder, lambda r: _train_and_write(r, time.perf_counter()))
            run, assistants = chain.climb()
            student = run.inputs.student
            baselines = Baselines(run) if baselines else None
        log, learner = train_stages(run, state)
        student.model.eval()
        if run.judge:
            metric, value = measure(run.judge, student.model)
        found, more = baselines.train(state) if baselines else (None, [])
        result = DistillResult(
            output=str(config.output),
            recipe=run.recipe.name,
            student=config.student or run.recipe.student,
            metric=metric,
            value=value,
            teacher_value=teachers[0]["value"] if teachers else None,
            parameters=count_parameters(student.model),
            teacher_parameters=teachers[0]["parameters"] if teachers else None,
            train_samples=len(inputs.table),
            eval_samples=len(inputs.held_out) if inputs.held_out else 0,
            duration_s=round(time.perf_counter() - start, 3),
            baselines=found,
            teachers=teachers if len(teachers) > 1 else None,
            assistants=assistants,
        )
        output = config.output
        with processes.shared_fate():
            if processes.is_main():
                with staged_folder(output, replaces=is_distilled) as folder:
                    _write(folder, run, learner, [*log, *more], result, state.earlier())
    return result


def _measured_teachers(run: Run) -> list[dict[str, Any]]:
    """The metric and size of each teacher; the value is None where nothing is evaluated."""
    from distill.training.evaluation import measure
    from edge.checkpoint import count_parameters

    judge, teachers = run.teacher_judge, run.inputs.named_teachers
    values: dict[str, float | None] = dict.fromkeys(teachers)
    if judge and teachers:
        with step("evaluating the teacher"):
            values = {name: measure(judge, one.model)[1] for name, one in teachers.items()}
    return [
        {
            "name": name,
            "source": teacher.checkpoint.source,
            "parameters": count_parameters(teacher.model),
            "value": values[name],
        }
        for name, teacher in teachers.items()
    ]


def _write(
    folder: Path, run: Run, learner: Learner, log: Log, result: DistillResult, earlier: Log
) -> None:
    from edge.checkpoint import save_checkpoint

    with hush():
        save_checkpoint(run.inputs.student.model, run.inputs.student.tokenizer, folder)
    learner.write(folder)
    _write_log(folder / LOG_FILE, log)
    record = {
        **result.to_dict(),
        "seed": run.inputs.config.seed,
        "copied_layers": run.inputs.student.copied_layers,
        "processes": processes.count(),
        "config": run.inputs.config.model_dump(mode="json"),
        "made_from": run.fingerprint,
        "files": {name: one.model_dump() for name, one in records_of(folder).items()},
    }
    if earlier:
        record["before_it_was_resumed"] = earlier
    write_text(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")


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
