"""Temporary files beside an output, and recovery from those of dead processes.

.NAME.lock        locked by the process that writes NAME
.NAME.partial-X   a stage: the future NAME, locked by its process
.NAME.replaced-X  the old NAME, briefly, on a system that cannot exchange two folders
.NAME.ready-X     complete files that are being moved into the folder NAME one by one

Locks are flock locks, which the system releases when the process ends in any way. A stage without
a lock is abandoned and may be removed; process ids are not used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge.storage import system

PARTIAL, REPLACED, READY = "partial", "replaced", "ready"


def home(path: Path) -> Path:
    """Return the folder for the temporary files of `path`.

    It is the parent of `path`, or `path` itself if that is a mount point or the parent is
    read-only.
    """
    fixed = os.path.ismount(path) or (path.is_dir() and not os.access(path.parent, os.W_OK))
    return path if fixed else path.parent


def entries(path: Path) -> list[Path]:
    """Return the entries of a folder, without its temporary files."""
    name = re.escape(f".{path.name}.")
    pattern = re.compile(rf"{name}(lock|({PARTIAL}|{REPLACED}|{READY})-[\w-]+)")
    return [entry for entry in path.iterdir() if not pattern.fullmatch(entry.name)]


def beside(path: Path, kind: str, token: str) -> Path:
    """Return the path of a temporary file of `path`: its kind with the token of a process."""
    return home(path) / f".{path.name}.{kind}-{token}"


def lock_file(path: Path) -> Path:
    """Return the lock file of `path`."""
    return home(path) / f".{path.name}.lock"


def remove_dead(path: Path) -> None:
    """Remove the stages of `path` that no process has locked."""
    for stage in _temporary_files(path, PARTIAL):
        _remove_unless_locked(stage)


def remove_all_dead(folder: Path) -> None:
    """Remove every stage in `folder`, of any output, that no process has locked."""
    for stage in _named(folder, r"\..+", PARTIAL):
        _remove_unless_locked(stage)


def recover(path: Path) -> None:
    """Finish or undo the write of a dead process to `path`; the caller must hold its lock."""
    for old in _temporary_files(path, REPLACED):
        if os.path.lexists(path):
            system.remove(old)
        else:
            old.rename(path)
    for ready in _temporary_files(path, READY):
        move_into(ready, path)
    remove_dead(path)


def move_into(ready: Path, folder: Path) -> None:
    """Move the files of `ready` into `folder` one by one; a repeated call resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(ready.iterdir()):
        file.replace(folder / file.name)
    system.flush_entry(folder)
    system.remove(ready)


def _temporary_files(path: Path, kind: str) -> list[Path]:
    return _named(home(path), re.escape(f".{path.name}"), kind)


def _named(folder: Path, name: str, kind: str) -> list[Path]:
    # No dot in the last part: `.a.partial-b.partial-c` is a stage of `a.partial-b`, not of `a`.
    pattern = re.compile(rf"{name}\.{kind}-[\w-]+")
    try:
        return sorted(entry for entry in folder.iterdir() if pattern.fullmatch(entry.name))
    except OSError:
        return []


def _remove_unless_locked(stage: Path) -> None:
    with system.opened(stage) as handle:
        # Without support for locks, its process may be alive.
        if handle is not None and system.try_lock(handle) and system.is_same(handle, stage):
            system.remove(stage)
