"""What a stage keeps while it trains: a state to continue from, and the best weights so far."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import safetensors.torch
from transformers import TrainerCallback

from distill import processes
from distill.resume import BEST_WEIGHTS
from edge.console import say
from edge.storage import storage_errors


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

    patience: evaluations without a better value after which a stage ends. Everything follows from
    the log, which a training checkpoint holds.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        self._file = folder / BEST_WEIGHTS
        self._patience = patience
        self._key = ""

    def look(self, trainer: Any, key: str) -> None:
        """After an evaluation: keep what is best, and stop when nothing better came for long."""
        self._key = key
        scores = self._scores(trainer)
        since = len(scores) - 1 - scores.index(max(scores))
        if since == 0:
            with processes.shared_fate():
                if processes.is_main():
                    self._keep(trainer.model)
        elif since >= self._patience:
            trainer.control.should_training_stop = True
            # A run continued from here would train a step too many.
            trainer.control.should_save = False

    def load(self, trainer: Any) -> None:
        """Put the best weights into the trainer's model."""
        scores = self._scores(trainer)
        if not scores:
            return
        best = scores.index(max(scores))
        if best < len(scores) - 1:
            # Together: the main process takes the file away once it has gone on.
            with processes.shared_fate():
                safetensors.torch.load_model(trainer.model, str(self._file))
            name = self._key.removeprefix("eval_")
            say(f"{name} was best, {scores[best]:.4f}, after evaluation {best + 1}: taken")

    def _keep(self, model: Any) -> None:
        partial = self._file.with_suffix(".partial")
        try:
            with storage_errors(self._file):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                safetensors.torch.save_model(model, str(partial))
                partial.replace(self._file)
        finally:
            partial.unlink(missing_ok=True)

    def _scores(self, trainer: Any) -> list[float]:
        """A metric that is not a number is worse than any other."""
        found = [row[self._key] for row in trainer.state.log_history if self._key in row]
        return [-math.inf if math.isnan(value) else value for value in found]
