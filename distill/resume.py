"""Continuing a run that was interrupted: what is kept beside the output until it is whole."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.console import say
from edge.errors import UserError
from edge.storage import storage_errors, write_text

_FINGERPRINT = "fingerprint.json"
_FINISHED = "finished.json"
_WEIGHTS = "model.safetensors"


class TrainingState:
    """The folder `OUTPUT.training`: one folder a stage, and what the run was started with."""

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.training")

    @contextlib.contextmanager
    def kept(self, fingerprint: dict[str, Any]) -> Iterator[None]:
        """Continue from what is there if it belongs to this very run, else start over.

        The folder goes when the block succeeds, and when it fails before anything is worth
        keeping. Raises UserError when the folder is something else.
        """
        self._open(fingerprint)
        try:
            yield
        except BaseException:
            if any(self.folder.glob(f"*/{_FINISHED}")) or any(self.folder.glob("*/checkpoint-*")):
                say(f"{self.folder} is kept: the same command continues from there")
            else:
                self._remove()
            raise
        self._remove()

    def _open(self, fingerprint: dict[str, Any]) -> None:
        file = self.folder / _FINGERPRINT
        if self.folder.exists() and not file.is_file() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is in the way of the training state: move it or choose "
                "another --output"
            )
        if file.is_file():
            if _read(file) == fingerprint:
                say(f"continuing the run kept in {self.folder}")
                return
            say(f"{self.folder} belongs to a run with other data or settings: starting over")
            shutil.rmtree(self.folder)
        write_text(file, json.dumps(fingerprint, indent=1))

    def stage(self, index: int, name: str) -> Path:
        return self.folder / f"{index}-{name}"

    def finished(self, stage: Path) -> list[dict[str, Any]] | None:
        """The log of a stage that was completed; None when it was not."""
        found: list[dict[str, Any]] | None = _read(stage / _FINISHED)
        return found if (stage / _WEIGHTS).is_file() else None

    def finish(self, trainer: Any, stage: Path) -> None:
        """Keep a completed stage's weights and log instead of its training checkpoints."""
        with storage_errors(stage):
            trainer.save_model(str(stage))
            write_text(stage / _FINISHED, json.dumps(trainer.state.log_history))
            for folder in stage.glob("checkpoint-*"):
                shutil.rmtree(folder)

    def load(self, learner: Any, stage: Path) -> None:
        """Put a completed stage's weights into `learner`."""
        import safetensors.torch

        safetensors.torch.load_model(learner, str(stage / _WEIGHTS))

    def last_checkpoint(self, stage: Path) -> Path | None:
        """The newest training checkpoint that was written whole; others are removed."""
        whole = []
        for folder in stage.glob("checkpoint-*"):
            # Trainer writes its state after weights, optimiser and random state.
            if _read(folder / "trainer_state.json") is None:
                shutil.rmtree(folder)
            else:
                whole.append((int(folder.name.rpartition("-")[2]), folder))
        return max(whole)[1] if whole else None

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
