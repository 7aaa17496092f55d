"""What a stage keeps while it trains: states to continue from, and the best weights so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from transformers import TrainerCallback

from distill.training import processes
from distill.training.states import BestRecord, FileRecord, best_file, best_of, step_of
from edge.console import say
from edge.errors import TrainingError
from edge.storage import staged_file, storage_errors

# What Trainer puts before the name of a metric.
_EVALUATED = "eval_"


class KeepState(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Asks for a training checkpoint when the last one is `seconds` old.

    Never between the last step of an epoch and its evaluation, which a continued run would not
    repeat, nor after the last step of all.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()
        self._last_step = self._next_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.monotonic()
        self._last_step = self._next_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not float(state.epoch).is_integer():
            self._look(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state, control)

    def _look(self, state: Any, control: Any) -> None:
        """Processes agree on the time; how soon they do so again follows from their pace."""
        if state.global_step < self._next_step or state.global_step >= state.max_steps:
            return
        waited_s = processes.agreed(time.monotonic() - self._last)
        if waited_s >= self._seconds:
            control.should_save = True
            self._last, self._last_step = time.monotonic(), state.global_step
            waited_s = 0.0
        pace_s = waited_s / max(1, state.global_step - self._last_step)
        left = (self._seconds - waited_s) / pace_s / 2 if pace_s else 1
        self._next_step = state.global_step + max(1, int(left))


class KeepBest:
    """The weights with the best metric so far, and whether to go on looking for better ones.

    patience: evaluations without a better value after which a stage ends. What is best follows from
    the log, which a training state holds; the file of the weights has the step of their evaluation
    in its name and its metadata, so that those of another one are never taken.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        self._folder = folder
        self._patience = patience
        # Evaluations up to this step do not count: their weights were not kept.
        self._after = 0
        self.record: BestRecord | None = None

    def resume(self, state: Path) -> None:
        """Go on from a training state, with the best weights that belong to it."""
        self.record = processes.from_main(lambda: best_of(state))
        self._after = self.record.after if self.record else step_of(state)

    def look(self, trainer: Any) -> None:
        """After an evaluation: keep what is best, and stop when nothing better came for long."""
        scores = self._scores(trainer)
        best = _first_best(scores)
        if best == len(scores) - 1:
            step, value = scores[best]
            self.record = processes.from_main(lambda: self._keep(trainer.model, step, value))
        elif len(scores) - 1 - best >= self._patience:
            trainer.control.should_training_stop = True
            # A run continued from here would train a step too many.
            trainer.control.should_save = False

    def load(self, trainer: Any) -> None:
        """Put the best weights into the trainer's model."""
        scores = self._scores(trainer)
        if not scores or (best := _first_best(scores)) == len(scores) - 1:
            return
        step, value = scores[best]
        # Together: the main process takes the file away once it has gone on.
        with processes.shared_fate():
            self._check_step(step)
            safetensors.torch.load_model(trainer.model, str(best_file(self._folder, step)))
        rows = _evaluations(trainer.state.log_history)
        number = [row["step"] for row in rows].index(step) + 1
        name = _metric(rows[0]).removeprefix(_EVALUATED)
        say(f"{name} was best, {value:.4f}, after evaluation {number}: taken")

    def _keep(self, model: Any, step: int, value: float) -> BestRecord:
        file = best_file(self._folder, step)
        file.parent.mkdir(parents=True, exist_ok=True)
        said = {"step": str(step), "value": repr(value)}
        with storage_errors(file), staged_file(file) as partial:
            safetensors.torch.save_model(model, str(partial), said)
        return BestRecord(step=step, after=self._after, file=FileRecord.of(file))

    def _check_step(self, step: int) -> None:
        """Raise TrainingError for weights that say they are of another evaluation."""
        with safetensors.safe_open(best_file(self._folder, step), "pt") as weights:
            said = (weights.metadata() or {}).get("step")
        if said != str(step):
            raise TrainingError(
                f"{best_file(self._folder, step)} has the weights of step {said}, not of {step}: "
                f"remove {self._folder.parent} to start over"
            )

    def _scores(self, trainer: Any) -> list[tuple[int, float]]:
        """Step and value of each evaluation that counts; not a number is worse than any other."""
        scores = [
            (row["step"], row[_metric(row)]) for row in _evaluations(trainer.state.log_history)
        ]
        return [
            (step, -math.inf if math.isnan(value) else value)
            for step, value in scores
            if step > self._after
        ]


def _first_best(scores: Sequence[tuple[int, float]]) -> int:
    values = [value for _, value in scores]
    return values.index(max(values))


def _evaluations(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in log if any(name.startswith(_EVALUATED) for name in row)]


def _metric(row: Mapping[str, Any]) -> str:
    """What the metric of an evaluation is called in the log."""
    return next(name for name in row if name.startswith(_EVALUATED))
