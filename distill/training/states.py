"""Training states on disk: folders `checkpoint-STEP`, each with a manifest that is written last.

The manifest names every file of the state with its size and hash, and the best weights that belong
to it. So a state that a crash left half written, or that a disk damaged, is told from a whole one
before any of it is used; the one before it is kept to continue from then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edge.config import Config
from edge.console import say
from edge.storage import flush, sha256, write_text
from edge.storage.leftovers import remove_all_dead
from edge.storage.system import remove

STATE_MANIFEST = "state.json"
# Best weights are of the evaluation at the step in their name.
_BEST = "best-{step}.safetensors"
# The newest state, and one to fall back to.
_KEPT = 2


class FileRecord(Config):
    """What a whole file is known by."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> FileRecord:
        return cls(bytes=file.stat().st_size, sha256=sha256(file))

    def damage(self, file: Path) -> str | None:
        """What is wrong with `file`; None when it is whole."""
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            return f"{file.name} is missing"
        if size != self.bytes:
            return f"{file.name} has {size:,} bytes where {self.bytes:,} belong"
        try:
            same = sha256(file) == self.sha256
        except OSError as error:
            return f"{file.name} cannot be read: {error.strerror}"
        return None if same else f"{file.name} has other contents"


class BestRecord(Config):
    """The best weights of a stage up to a state: of the evaluation at `step`.

    after: evaluations up to this step do not count, as their weights were not kept.
    """

    step: int
    after: int
    file: FileRecord


class StateManifest(Config):
    """What a training state consists of."""

    files: dict[str, FileRecord]
    best: BestRecord | None = None


def best_file(stage: Path, step: int) -> Path:
    """Return the file of the weights that the evaluation at `step` found best."""
    return stage / _BEST.format(step=step)


def records_of(folder: Path) -> dict[str, FileRecord]:
    """Return the record of every file in `folder`, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord.of(path)
        for path in files
        if path.name != STATE_MANIFEST
    }


def damage_of(folder: Path, records: Mapping[str, FileRecord]) -> str | None:
    """Return what is wrong with the first damaged file of `records`; None when all are whole."""
    problems = (record.damage(folder / name) for name, record in records.items())
    return next(filter(None, problems), None)


def seal(state: Path, best: BestRecord | None) -> None:
    """Declare a state whole, which is then the one to continue from, and remove what is too old."""
    flush(state)
    manifest = StateManifest(files=records_of(state), best=best)
    write_text(state / STATE_MANIFEST, manifest.model_dump_json(indent=1))
    older = [one for one in _states(state.parent) if step_of(one) < step_of(state)]
    fallback = [one for one in older if _manifest(one) is not None][: _KEPT - 1]
    _remove_states(one for one in older if one not in fallback)
    _remove_best(state.parent, {one.best for one in map(_manifest, [state, *fallback]) if one})


def recover(stage: Path) -> Path | None:
    """Return the newest whole state of a stage, None where there is none.

    What is not whole is removed, and said in a line; so is what is ahead of the state: best weights
    of an evaluation that the continued run will come to again.
    """
    newest, problems = None, []
    if stage.is_file():
        say(f"{stage} is damaged, a file in place of a folder: starting the stage over")
        stage.unlink()
    for state in _states(stage):
        problem = _damage(state)
        if problem is None:
            newest = state
            break
        problems.append(f"step {step_of(state)} ({problem})")
        _remove_states([state])
    if problems:
        then = f"continuing from step {step_of(newest)}" if newest else "starting the stage over"
        say(f"{stage}: damaged state of {', '.join(problems)}: {then}")
    _remove_best(stage, {one.best for one in map(_manifest, _states(stage)) if one})
    return newest


def best_of(state: Path) -> BestRecord | None:
    """Return the best weights that a whole state goes with, where there are any."""
    manifest = _manifest(state)
    return manifest.best if manifest else None


def newest_whole(stage: Path) -> Path | None:
    """Return the newest whole state of a stage; nothing is removed."""
    return next((state for state in _states(stage) if _damage(state) is None), None)


def step_of(state: Path) -> int:
    """Return the step after which a training state was written."""
    return int(state.name.rpartition("-")[2])


def remove_states(stage: Path) -> None:
    """Remove all states of a stage and all best weights."""
    _remove_states(_states(stage))
    _remove_best(stage, set())


def _states(stage: Path) -> list[Path]:
    """All states, whole or not, the newest first."""
    names = (path for path in stage.glob("checkpoint-*") if path.name[11:].isdecimal())
    return sorted(names, key=step_of, reverse=True)


def _manifest(state: Path) -> StateManifest | None:
    try:
        return StateManifest.model_validate_json((state / STATE_MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def _damage(state: Path) -> str | None:
    """What is wrong with a state; None when it is whole."""
    if not (state / STATE_MANIFEST).exists():
        return "it was not written to its end"
    manifest = _manifest(state)
    if manifest is None:
        return f"{STATE_MANIFEST} cannot be read"
    problem = damage_of(state, manifest.files)
    if problem is None and manifest.best is not None:
        problem = manifest.best.file.damage(best_file(state.parent, manifest.best.step))
    return problem


def _remove_states(states: Iterable[Path]) -> None:
    for state in states:
        # First: what is half removed is no state.
        remove(state / STATE_MANIFEST)
        remove(state)


def _remove_best(stage: Path, but: set[BestRecord | None]) -> None:
    """Remove best weights, except those that a state goes with."""
    files = {best_file(stage, one.step) for one in but if one is not None}
    for file in stage.glob(_BEST.format(step="*")):
        if file not in files:
            remove(file)
    remove_all_dead(stage)
