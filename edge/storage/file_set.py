"""Atomic update of several files in one folder that keeps its other files.

A copy of the folder, with hard links and the new files, is created beside it and exchanged with it
in one step, so readers see all old files or all new ones, also after a crash. Where that is not
possible (a file system without links or exchange, a mount point, the working directory), complete
files are moved one by one, and the next command on the folder finishes an interrupted update.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge.errors import StorageError
from edge.storage import system
from edge.storage.errors import follow, is_working_folder, storage_errors
from edge.storage.leftovers import READY, beside, entries, home, move_into
from edge.storage.locks import output_lock
from edge.storage.staging import replace_folder, stage_of, staged_file

# With more entries, creating the links takes too long.
_MAX_ENTRIES = 20_000


def write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files, by name, into `folder` together; its other files are kept.

    Raises UserError while another process writes the folder, StorageError when it cannot be
    written; the folder is then unchanged.
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
                replace_folder(stage, path)
                _take_over_new_entries(stage, path, texts)
            elif _is_exchangeable(path, texts) and _exchanged(stage, path, texts):
                _take_over_new_entries(stage, path, texts)
            else:
                _write_one_by_one(stage, path, texts)


def _write_all(stage: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (stage / name).write_text(text, encoding="utf-8", newline="")
        system.flush_entry(stage / name)


def _is_new(path: Path) -> bool:
    """Return True if `path` does not exist, or is an empty folder that may be replaced."""
    return not path.exists() or (_is_movable(path) and not entries(path))


def _is_movable(path: Path) -> bool:
    return home(path) != path and not is_working_folder(path)


def _is_exchangeable(path: Path, names: Iterable[str]) -> bool:
    """Return True if a copy may replace the folder; not if a link is in place of a file."""
    return (
        _is_movable(path)
        and path.stat().st_uid == os.geteuid()
        and not any((path / name).is_symlink() for name in names)
        and not _is_busy(path)
    )


def _is_busy(path: Path) -> bool:
    """Return True if another process has a lock in the folder."""
    for file in path.glob(".*"):
        with system.opened(file) as handle:
            if handle is not None and system.try_lock(handle) is False:
                return True
    return False


def _exchanged(stage: Path, path: Path, names: Iterable[str]) -> bool:
    """Exchange `path` for `stage` plus links to its other entries; return False if it fails."""
    try:
        _link_all(path, stage, frozenset(names), [_MAX_ENTRIES])
        system.flush(stage)
        exchanged = system.exchange(stage, path)
    except OSError:
        return False
    if exchanged:
        system.flush_entry(path.parent)
    return exchanged


def _link_all(source: Path, target: Path, excluded: frozenset[str], remaining: list[int]) -> None:
    """Link all entries of `source` into `target`; raises OSError after `remaining[0]` entries."""
    for entry in _entries(source):
        if entry.name in excluded:
            continue
        remaining[0] -= 1
        if not remaining[0]:
            raise OSError("too many entries")
        copy = target / entry.name
        if not entry.is_dir(follow_symlinks=False):
            os.link(entry.path, copy, follow_symlinks=False)
            continue
        copy.mkdir()
        _link_all(Path(entry.path), copy, frozenset(), remaining)
        if entry.stat().st_uid != os.geteuid():
            raise OSError("a folder of another user")
    shutil.copystat(source, target)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _take_over_new_entries(old: Path, path: Path, excluded: Iterable[str]) -> None:
    """Move entries that others added to the old folder during the update into the new one."""
    if not old.is_dir():
        return
    for entry in _entries(old):
        if entry.name in excluded:
            continue
        new_path = path / entry.name
        if entry.is_dir(follow_symlinks=False) and new_path.is_dir():
            _take_over_new_entries(Path(entry.path), new_path, ())
        elif not _is_same_file(entry, new_path):
            with contextlib.suppress(OSError):
                Path(entry.path).rename(new_path)


def _is_same_file(entry: os.DirEntry[str], path: Path) -> bool:
    try:
        return os.path.samestat(entry.stat(follow_symlinks=False), path.lstat())
    except FileNotFoundError:
        return False


def _write_one_by_one(stage: Path, path: Path, names: Iterable[str]) -> None:
    for entry in list(stage.iterdir()):
        if entry.name not in names:
            system.remove(entry)
        elif (path / entry.name).is_symlink():
            # The link is kept, and its target is written.
            with staged_file(path / entry.name) as copy:
                shutil.copyfile(entry, copy)
            entry.unlink()
    ready = beside(path, READY, stage.name.rpartition("-")[2])
    stage.rename(ready)
    move_into(ready, path)
