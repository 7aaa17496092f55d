"""Several files of one folder that change together, among other files that stay.

A copy of the folder is made beside it, of hard links and the new files, and exchanged with it in
one step: whoever looks, or kills the process, finds all old files or all new ones. Where that is
not possible (a file system without links or exchange, a mount point, the folder one is in), whole
files are moved one by one, and the next command on the folder finishes what was begun.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge.errors import StorageError
from edge.storage import system
from edge.storage.faults import follow, is_working_folder, storage_errors
from edge.storage.leftovers import READY, beside, entries, home, move_into
from edge.storage.locks import output_lock
from edge.storage.staging import put_folder, stage_of, staged_file

# Links to more entries than that take longer than what they are made for.
_MOST_ENTRIES = 20_000


def write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files, by their names, into `folder`; its other files are left alone.

    Raises UserError while another process writes the folder, StorageError when it cannot be
    written; it is as it was then.
    """
    with output_lock(folder), storage_errors(folder):
        path = follow(folder)
        for name in texts:
            if (path / name).is_dir():
                raise StorageError(f"{folder / name} is a folder: move it, a file goes there")
        with stage_of(path) as stage:
            _write_all(stage, texts)
            if _is_new(path):
                system.flush(stage)
                put_folder(stage, path)
                _bring_back(stage, path, texts)
            elif _is_exchangeable(path, texts) and _exchanged(stage, path, texts):
                _bring_back(stage, path, texts)
            else:
                _write_one_by_one(stage, path, texts)


def _write_all(stage: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (stage / name).write_text(text, encoding="utf-8", newline="")
        system.flush_entry(stage / name)


def _is_new(path: Path) -> bool:
    """Whether there is nothing yet, or an empty folder that may be replaced as a whole."""
    return not path.exists() or (_is_movable(path) and not entries(path))


def _is_movable(path: Path) -> bool:
    return home(path) != path and not is_working_folder(path)


def _is_exchangeable(path: Path, names: Iterable[str]) -> bool:
    """Whether the folder may be exchanged for a copy; links in place of files stay links."""
    return (
        _is_movable(path)
        and path.stat().st_uid == os.geteuid()
        and not any((path / name).is_symlink() for name in names)
        and not _is_busy(path)
    )


def _is_busy(path: Path) -> bool:
    """Whether another process writes something inside."""
    for file in path.glob(".*"):
        with system.opened(file) as handle:
            if handle is not None and system.try_lock(handle) is False:
                return True
    return False


def _exchanged(stage: Path, path: Path, names: Iterable[str]) -> bool:
    """Exchange `path` for `stage`, with links to all its other entries; false where that fails."""
    try:
        _link_all(path, stage, frozenset(names), [_MOST_ENTRIES])
        system.flush(stage)
        done = system.exchange(stage, path)
    except OSError:
        return False
    if done:
        system.flush_entry(path.parent)
    return done


def _link_all(source: Path, target: Path, without: frozenset[str], left: list[int]) -> None:
    for entry in _entries(source):
        if entry.name in without:
            continue
        left[0] -= 1
        if not left[0]:
            raise OSError("too many entries")
        copy = target / entry.name
        if not entry.is_dir(follow_symlinks=False):
            os.link(entry.path, copy, follow_symlinks=False)
            continue
        copy.mkdir()
        _link_all(Path(entry.path), copy, frozenset(), left)
        if entry.stat().st_uid != os.geteuid():
            raise OSError("a folder of another user")
    shutil.copystat(source, target)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _bring_back(old: Path, path: Path, without: Iterable[str]) -> None:
    """Take over what others put into the old folder while the new one was made of it."""
    if not old.is_dir():
        return
    for entry in _entries(old):
        if entry.name in without:
            continue
        there = path / entry.name
        if entry.is_dir(follow_symlinks=False) and there.is_dir():
            _bring_back(Path(entry.path), there, ())
        elif not _is_same_file(entry, there):
            with contextlib.suppress(OSError):
                Path(entry.path).rename(there)


def _is_same_file(entry: os.DirEntry[str], there: Path) -> bool:
    try:
        return os.path.samestat(entry.stat(follow_symlinks=False), there.lstat())
    except FileNotFoundError:
        return False


def _write_one_by_one(stage: Path, path: Path, names: Iterable[str]) -> None:
    for entry in list(stage.iterdir()):
        if entry.name not in names:
            system.remove(entry)
        elif (path / entry.name).is_symlink():
            # The link stays one: what it leads to is written.
            with staged_file(path / entry.name) as copy:
                shutil.copyfile(entry, copy)
            entry.unlink()
    ready = beside(path, READY, stage.name.rpartition("-")[2])
    stage.rename(ready)
    move_into(ready, path)
