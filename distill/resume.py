"""Continuing a run that was interrupted: what is kept beside the output until it is whole."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill import processes
from edge.console import say
from edge.errors import UserError
from edge.storage import storage_errors, write_text

# What was done, in the folder of a run that is finished.
RECORD_FILE = "distillation.json"
_FINGERPRINT = "fingerprint.json"
_FINISHED = "finished.json"
_EARLIER = "earlier.json"
_WEIGHTS = "model.safetensors"
# The weights that an evaluation found best so far.
BEST_WEIGHTS = "best.safetensors"
# What a run that is resumed may change: how weights move, never what they are or learn from.
_FREE_SETTINGS = ("learning_rate", "epochs", "max_steps", "early_stopping")
_FREE_OF_STAGES = (
    *_FREE_SETTINGS,
    "schedule",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "adam_betas",
    "adam_epsilon",
)
_FREE_OF_TERMS = ("weight", "temperature")


class TrainingState:
    """The folder `OUTPUT.training`: one folder a stage, and what the run was started with."""

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.training")

    @contextlib.contextmanager
    def kept(self, fingerprint: dict[str, Any], *, resume: bool = False) -> Iterator[None]:
        """Continue from what is there if it belongs to this very run, else start over.

        resume: continue also when learning rates, weights of terms and the like are others.
        The folder goes when the block succeeds, and when it fails before anything is worth
        keeping. Raises UserError when the folder is something else, or there is nothing to resume.
        """
        processes.from_main(lambda: self._open(fingerprint, resume=resume))
        try:
            yield
        except BaseException:
            if processes.is_main():
                self._keep_or_remove()
            raise
        if processes.is_main():
            self._remove()

    def _open(self, fingerprint: dict[str, Any], *, resume: bool) -> None:
        file = self.folder / _FINGERPRINT
        if self.folder.exists() and not file.is_file() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is in the way of the training state: move it or choose "
                "another --output"
            )
        found = _read(file)
        if found == fingerprint:
            say(f"continuing the run kept in {self.folder}")
            return
        if resume:
            self._resume(found, fingerprint)
        elif file.is_file():
            say(f"{self.folder} belongs to a run with other data or settings: starting over")
            shutil.rmtree(self.folder)
        write_text(file, json.dumps(fingerprint, indent=1))

    def _resume(self, found: dict[str, Any] | None, fingerprint: dict[str, Any]) -> None:
        if found is None:
            raise UserError(f"{self.folder} keeps no run to resume: leave out --resume")
        other = _differences(_lasting(fingerprint), _lasting(found))
        if other:
            raise UserError(
                f"the run kept in {self.folder} was made with another {', '.join(other)}, not "
                "only other learning rates, epochs or weights: leave out --resume to start over"
            )
        say(f"continuing the run kept in {self.folder} with other settings")
        write_text(self.folder / _EARLIER, json.dumps([*self.earlier(), found], indent=1))

    def earlier(self) -> list[dict[str, Any]]:
        """What the run was started with before it was resumed with other settings."""
        return _read(self.folder / _EARLIER) or []

    def _keep_or_remove(self) -> None:
        # Assistants keep the same, one folder deeper.
        kept = (_FINISHED, "checkpoint-*", RECORD_FILE)
        if any(any(self.folder.rglob(name)) for name in kept):
            say(f"{self.folder} is kept: the same command continues from there")
        else:
            self._remove()

    def stage(self, index: int, name: str) -> Path:
        return self.folder / f"{index}-{name}"

    def finished(self, stage: Path) -> list[dict[str, Any]] | None:
        """The log of a stage that was completed; None when it was not."""
        found: list[dict[str, Any]] | None = _read(stage / _FINISHED)
        return found if (stage / _WEIGHTS).is_file() else None

    def finish(self, trainer: Any, stage: Path) -> None:
        """Keep a completed stage's weights and log instead of its training checkpoints."""
        with processes.shared_fate(), storage_errors(stage):
            trainer.save_model(str(stage))
            if not processes.is_main():
                return
            write_text(stage / _FINISHED, json.dumps(trainer.state.log_history))
            (stage / BEST_WEIGHTS).unlink(missing_ok=True)
            for folder in stage.glob("checkpoint-*"):
                shutil.rmtree(folder)

    def load(self, learner: Any, stage: Path) -> None:
        """Put a completed stage's weights into `learner`."""
        import safetensors.torch

        safetensors.torch.load_model(learner, str(stage / _WEIGHTS))

    def last_checkpoint(self, stage: Path) -> Path | None:
        """The newest training checkpoint that was written whole; others are removed."""
        found: Path | None = processes.from_main(lambda: _newest(stage))
        return found

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def last_checkpoint(stage: Path) -> Path | None:
    """The newest training checkpoint that was written whole."""
    return max(filter(_is_whole, stage.glob("checkpoint-*")), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The step after which a training checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _newest(stage: Path) -> Path | None:
    for folder in stage.glob("checkpoint-*"):
        if not _is_whole(folder):
            shutil.rmtree(folder)
    return last_checkpoint(stage)


def _is_whole(checkpoint: Path) -> bool:
    # Trainer writes its state after weights, optimiser and random state.
    return _read(checkpoint / "trainer_state.json") is not None


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names of what differs, those of single settings first."""
    ours, theirs = dict(ours), dict(theirs)
    settings = ours.pop("config"), theirs.pop("config")
    found = [
        sorted(name for name in a | b if a.get(name) != b.get(name))
        for a, b in (settings, (ours, theirs))
    ]
    return list(dict.fromkeys(found[0] + found[1]))


def _lasting(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What of a run stays as it is when it is resumed with other settings."""
    lasting = copy.deepcopy(fingerprint)
    for name in _FREE_SETTINGS:
        lasting["config"].pop(name, None)
    # Another file may say how to go on; what it has to share is compared below.
    lasting["config"].pop("recipe", None)
    for stage in lasting["recipe"]["stages"]:
        for name in _FREE_OF_STAGES:
            stage.pop(name, None)
        for term in stage["terms"]:
            for name in _FREE_OF_TERMS:
                term.pop(name, None)
    lasting["stages"] = lasting.pop("recipe")["stages"]
    return lasting


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
