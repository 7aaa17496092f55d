"""Curves of a run in TensorBoard, for those who have it; the CSV is written in any case."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from edge.errors import ConfigError
from edge.storage import storage_errors

_NOT_CURVES = {"epoch", "step"}


def check_tensorboard() -> None:
    """Raise ConfigError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "--tensorboard needs TensorBoard: pip install tensorboard, or leave it out and read "
            "training_log.csv"
        )


class Board(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Each term, the learning rate, the gradient's norm and the metric of one stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with storage_errors(self._folder):
            # What a run that is continued wrote after the state it continues from is void.
            self._writer = SummaryWriter(str(self._folder), purge_step=state.global_step + 1)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        for name, value in (logs or {}).items():
            if self._writer is not None and name not in _NOT_CURVES:
                self._writer.add_scalar(name.removeprefix("eval_"), value, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
