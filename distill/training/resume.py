"""Continuing a run that was interrupted: what is kept beside the output until it is whole."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.training import processes, states
from distill.training.states import FileRecord, damage_of
from edge.config import Config
from edge.console import say
from edge.errors import UserError
from edge.provenance import differences
from edge.storage import flush, storage_errors, write_text
from edge.storage.system import remove

# What was done, in the folder of a run that is finished.
RECORD_FILE = "distillation.json"
_FINGERPRINT = "fingerprint.json"
_FINISHED = "finished.json"
_EARLIER = "earlier.json"
_WEIGHTS = "model.safetensors"
# Every name that a run gives in its folder: of stages, of assistants and their own folders, and of
# what was being written when a process died.
_NAMES = re.compile(
    r"\d+-.*|assistant-\d+(\.training)?|fingerprint\.json|earlier\.json|\..*\.(lock|partial-.*|replaced-.*|ready-.*)"
)
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


class Finished(Config):
    """What a completed stage leaves: its log, and its weights by their record."""

    log: list[dict[str, Any]]
    files: dict[str, FileRecord]


class Files(Config):
    """The files of a folder by their records."""

    files: dict[str, FileRecord]


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
        with storage_errors(self.folder):
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
        self._check_free()
        file = self.folder / _FINGERPRINT
        previous = _fingerprint(file)
        if previous == fingerprint:
            say(f"continuing the run kept in {self.folder}")
            return
        if previous is None and self._holds_something():
            say(f"{self.folder} is damaged, its {_FINGERPRINT} cannot be read: starting over")
            shutil.rmtree(self.folder)
        elif resume:
            self._resume(previous, fingerprint)
        elif previous is not None:
            say(f"{self.folder} belongs to a run with other data or settings: starting over")
            shutil.rmtree(self.folder)
        write_text(file, json.dumps(fingerprint, indent=1))

    def _check_free(self) -> None:
        """Raise UserError where the folder is not one that a run made."""
        if not self.folder.exists() and not self.folder.is_symlink():
            return
        is_folder = self.folder.is_dir()
        if not is_folder or not all(_NAMES.fullmatch(one.name) for one in self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is in the way of the training state: move it or choose "
                "another --output"
            )

    def _holds_something(self) -> bool:
        """Whether a run had begun to keep something; not where it died before that."""
        return self.folder.is_dir() and any(
            not path.name.startswith(".") for path in self.folder.iterdir()
        )

    def _resume(self, previous: dict[str, Any] | None, fingerprint: dict[str, Any]) -> None:
        if previous is None:
            raise UserError(f"{self.folder} keeps no run to resume: leave out --resume")
        other = _differences(_lasting(fingerprint), _lasting(previous))
        if other:
            raise UserError(
                f"the run kept in {self.folder} was made with another {', '.join(other)}, not "
                "only other learning rates, epochs or weights: leave out --resume to start over"
            )
        say(f"continuing the run kept in {self.folder} with other settings")
        write_text(self.folder / _EARLIER, json.dumps([*self.earlier(), previous], indent=1))

    def earlier(self) -> list[dict[str, Any]]:
        """What the run was started with before it was resumed with other settings."""
        earlier = _read(self.folder / _EARLIER)
        return earlier if isinstance(earlier, list) else []

    def _keep_or_remove(self) -> None:
        # Assistants keep the same, one folder deeper.
        kept = (_FINISHED, states.STATE_MANIFEST, RECORD_FILE)
        if any(any(self.folder.rglob(name)) for name in kept):
            say(f"{self.folder} is kept: the same command continues from there")
        else:
            self._remove()

    def stage(self, index: int, name: str) -> Path:
        return self.folder / f"{index}-{name}"

    def finished(self, stage: Path) -> list[dict[str, Any]] | None:
        """The log of a stage that was completed; None when it was not.

        One whose weights or log are damaged starts over, and so do the stages after it.
        """
        with storage_errors(stage):
            log: list[dict[str, Any]] | None = processes.from_main(lambda: self._finished(stage))
        return log

    def _finished(self, stage: Path) -> list[dict[str, Any]] | None:
        file = stage / _FINISHED
        if not file.exists():
            return None
        try:
            finished = Finished.model_validate_json(file.read_bytes())
        except (OSError, ValueError):
            problem: str | None = f"{_FINISHED} cannot be read"
        else:
            problem = damage_of(stage, finished.files)
            if problem is None:
                return finished.log
        say(f"{stage}: what the finished stage left is damaged ({problem}): starting it over")
        first = _number(stage)
        for folder in self.folder.iterdir():
            if _number(folder) >= first:
                remove(folder)
        return None

    def finish(self, trainer: Any, stage: Path) -> None:
        """Keep a completed stage's weights and log instead of its training states."""
        with processes.shared_fate(), storage_errors(stage):
            trainer.save_model(str(stage))
            if not processes.is_main():
                return
            flush(stage / _WEIGHTS)
            records = {_WEIGHTS: FileRecord.of(stage / _WEIGHTS)}
            finished = Finished(log=trainer.state.log_history, files=records)
            # Last: a power cut must not leave it without the weights it speaks of.
            write_text(stage / _FINISHED, finished.model_dump_json())
            states.remove_states(stage)

    def load(self, learner: Any, stage: Path) -> None:
        """Put a completed stage's weights into `learner`."""
        import safetensors.torch

        safetensors.torch.load_model(learner, str(stage / _WEIGHTS))

    def last_checkpoint(self, stage: Path) -> Path | None:
        """The newest training state that is whole; see `distill.training.states.recover`."""
        with storage_errors(stage):
            newest: Path | None = processes.from_main(lambda: states.recover(stage))
        return newest

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def damage_of_output(folder: Path) -> str | None:
    """What is wrong with a folder that a run wrote, by its record; None when it is whole."""
    record = _read(folder / RECORD_FILE)
    try:
        files = Files.model_validate({"files": record["files"]}).files
    except (KeyError, TypeError, ValueError):
        return f"{RECORD_FILE} cannot be read"
    return damage_of(folder, files)


def _number(folder: Path) -> int:
    """The number of a stage's folder; -1 for any other."""
    first = folder.name.partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _fingerprint(file: Path) -> dict[str, Any] | None:
    """What a run was started with; None where nothing whole says so."""
    values = _read(file)
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        return None
    return values if isinstance(values.get("recipe"), dict) else None


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names of what differs, those of single settings first."""
    ours, theirs = dict(ours), dict(theirs)
    settings = differences(theirs.pop("config"), ours.pop("config"))
    return list(dict.fromkeys([*settings, *differences(theirs, ours)]))


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
