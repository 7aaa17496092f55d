"""The stages of a run, one after the other, each continued where it was left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.recipe.config import Stage
from distill.training import processes
from edge.console import say
from edge.storage import storage_errors

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from distill.objectives import Learner
    from distill.prepare import Run
    from distill.training.resume import TrainingState

Log = list[dict[str, Any]]


class Trained(NamedTuple):
    """The log, and the student with the companions of the last stage."""

    log: Log
    learner: Learner


def train_stages(run: Run, state: TrainingState, *, first: int = 0) -> Trained:
    """Train the student of `run` through its stages; each row of the log names its stage.

    first: the number of the first stage in the folder of `state`.
    """
    done = [
        _train_stage(run, stage, state, index)
        for index, stage in enumerate(run.recipe.stages, first)
    ]
    named = zip(run.recipe.stages, done, strict=True)
    log = [{"stage": stage.name, **row} for stage, trained in named for row in trained.log]
    return Trained(log, done[-1].learner)


def _train_stage(run: Run, stage: Stage, state: TrainingState, index: int) -> Trained:
    """Train one stage, or take over what an earlier run of it left."""
    import transformers

    from distill.training.trainer import DistillTrainer

    config = run.inputs.config
    # A stage starts alike whether those before it ran just now or long ago.
    transformers.set_seed(config.seed)
    learner = run.inputs.learner(stage)
    folder = state.stage(index, stage.name)
    log = state.finished(folder)
    if log is not None:
        state.load(learner, folder)
        return Trained(log, learner)
    last = state.last_checkpoint(folder)
    # The folder is made, and files in it are written, at many places of Trainer.
    with storage_errors(folder):
        trainer = DistillTrainer(
            learner,
            stage=stage,
            samples=run.texts[stage.name].samples,
            source=processes.main_first(lambda: run.sources(stage)),
            folder=folder,
            judge=run.judge,
            seed=config.seed,
            bf16=config.bf16,
            save_seconds=config.save_seconds,
            callbacks=_watchers(config.tensorboard, folder),
        )
        done = trainer.train(resume_from_checkpoint=str(last) if last else None)
    say(
        f"{stage.name}: {done.global_step} steps, "
        f"{done.metrics['train_samples_per_second']:.0f} samples/s"
    )
    state.finish(trainer, folder)
    return Trained(trainer.state.log_history, learner)


def _watchers(tensorboard: Path | None, folder: Path) -> list[TrainerCallback]:
    """Who is told of each step beside the trainer's own."""
    if tensorboard is None or not processes.is_main():
        return []
    from distill.training.tensorboard import Board

    return [Board(tensorboard / folder.name)]
