"""What is written beside an output until it is whole, and what dead processes left of it.

.NAME.lock        held by the process that writes NAME
.NAME.partial-X   a stage: what becomes NAME, held by its process
.NAME.replaced-X  the old NAME, for the moment in which a system without exchange has none
.NAME.ready-X     whole files that are being moved into the folder NAME one by one

"Held" is a lock of the system (flock), which goes with its process however that ends. A stage that
nobody holds is rubbish, whatever its number; nothing is told from process ids.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge.storage import system

PARTIAL, REPLACED, READY = "partial", "replaced", "ready"


def home(path: Path) -> Path:
    """Return the folder of what is written beside `path`.

    That is inside it where it is a mount point, or where the folder above may not be written.
    """
    fixed = os.path.ismount(path) or (path.is_dir() and not os.access(path.parent, os.W_OK))
    return path if fixed else path.parent


def entries(path: Path) -> list[Path]:
    """Return what is in a folder, but for what is there only while it is written."""
    name = re.escape(f".{path.name}.")
    pattern = re.compile(rf"{name}(lock|({PARTIAL}|{REPLACED}|{READY})-[\w-]+)")
    return [entry for entry in path.iterdir() if not pattern.fullmatch(entry.name)]


def beside(path: Path, kind: str, token: str) -> Path:
    """Return the path of what has to do with `path` for the process that drew `token`."""
    return home(path) / f".{path.name}.{kind}-{token}"


def lock_file(path: Path) -> Path:
    """Return the file that the process which writes `path` holds."""
    return home(path) / f".{path.name}.lock"


def remove_dead(path: Path) -> None:
    """Remove the stages of `path` that no living process holds."""
    for stage in _of(path, PARTIAL):
        _remove_unless_held(stage)


def remove_all_dead(folder: Path) -> None:
    """Remove every stage in `folder`, of whatever name, that no living process holds."""
    for stage in _named(folder, r"\..+", PARTIAL):
        _remove_unless_held(stage)


def recover(path: Path) -> None:
    """Finish or undo what a process that died was doing to `path`; for who holds its lock."""
    for old in _of(path, REPLACED):
        if os.path.lexists(path):
            system.remove(old)
        else:
            old.rename(path)
    for ready in _of(path, READY):
        move_into(ready, path)
    remove_dead(path)


def move_into(ready: Path, folder: Path) -> None:
    """Move the files of `ready` into `folder` one by one; done again, it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(ready.iterdir()):
        file.replace(folder / file.name)
    system.flush_entry(folder)
    system.remove(ready)


def _of(path: Path, kind: str) -> list[Path]:
    return _named(home(path), re.escape(f".{path.name}"), kind)


def _named(folder: Path, name: str, kind: str) -> list[Path]:
    # No dot in the last part: `.a.partial-b.partial-c` is a stage of `a.partial-b`, not of `a`.
    pattern = re.compile(rf"{name}\.{kind}-[\w-]+")
    try:
        return sorted(entry for entry in folder.iterdir() if pattern.fullmatch(entry.name))
    except OSError:
        return []


def _remove_unless_held(stage: Path) -> None:
    with system.opened(stage) as handle:
        # Without locks nothing says that its process is dead.
        if handle is not None and system.try_lock(handle) and system.is_same(handle, stage):
            system.remove(stage)
