"""Atomic outputs: written beside their target, flushed to disk, and moved into place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.storage import system
from edge.storage.errors import check_folder, check_target, follow, storage_errors
from edge.storage.leftovers import PARTIAL, REPLACED, beside, home, remove_dead
from edge.storage.locks import output_lock

# Creates a stage in a folder, with a name that begins with a prefix, and returns its path.
_Make = Callable[[str, Path], str]


@contextlib.contextmanager
def staged_folder(
    target: Path, *, replaces: Callable[[Path], bool], wait: bool = False
) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes `target` when the block succeeds.

    replaces: `replaces(target)` returns True if an existing folder may be replaced. On any error in
    the block, also Ctrl-C, the temporary folder is removed and `target` is unchanged. If the system
    supports it, old and new folder are exchanged in one step. A symbolic link at `target` is kept
    and leads to the new folder. wait: as in `output_lock`.
    Raises UserError when the target must not be replaced, StorageError when it cannot be written.
    """
    with output_lock(target, wait=wait):
        check_target(target, replaces=replaces)
        path = follow(target)
        with storage_errors(target), stage_of(path) as stage:
            yield stage
            # The block may have taken hours, and the user may have created the target since.
            check_target(target, replaces=replaces)
            system.flush(stage)
            replace_folder(stage, path)


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file that becomes the file `target` when the block succeeds.

    It has the name of `target`, in a temporary folder that may hold other files too.
    """
    with _stage_of_file(target, _make_folder) as (stage, path):
        yield stage / path.name
        _replace_file(stage / path.name, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    The stage is itself the file that is renamed: a process that dies right after leaves nothing.
    """
    check_folder(path)
    with _stage_of_file(path, _make_file) as (stage, target):
        stage.write_text(text, encoding="utf-8", newline="")
        _replace_file(stage, target)


@contextlib.contextmanager
def _stage_of_file(target: Path, make: _Make) -> Iterator[tuple[Path, Path]]:
    """Yield a stage for the file `target`, and that path with its links resolved."""
    with storage_errors(target):
        path = follow(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_dead(path)
        with _locked_stage(path, make) as stage:
            yield stage, path


def _replace_file(file: Path, path: Path) -> None:
    system.flush_entry(file)
    file.replace(path)
    system.flush_entry(path.parent)


def stage_of(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Yield a new folder beside `path`, locked by this process and removed at the end."""
    return _locked_stage(path, _make_folder)


@contextlib.contextmanager
def _locked_stage(path: Path, make: _Make) -> Iterator[Path]:
    stage, handle = _new_stage(path, make)
    try:
        yield stage
    finally:
        system.remove(stage)
        os.close(handle)


def replace_folder(stage: Path, path: Path) -> None:
    """Replace `path` by the folder `stage`; the old folder is then at `stage`, or removed."""
    try:
        # Succeeds if `path` does not exist or is an empty folder.
        stage.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        if not system.exchange(stage, path):
            _replace_in_two_steps(stage, path)
    system.flush_entry(path.parent)


def _replace_in_two_steps(stage: Path, path: Path) -> None:
    """Replace `path` in two steps; `recover` restores the old folder after a crash in between."""
    old = beside(path, REPLACED, stage.name.rpartition("-")[2])
    path.rename(old)
    try:
        stage.rename(path)
    except BaseException:
        old.rename(path)
        raise
    system.remove(old)


def _new_stage(path: Path, make: _Make) -> tuple[Path, int]:
    """Return a stage beside `path`, and the handle that holds it."""
    while True:
        stage = Path(make(beside(path, PARTIAL, "").name, home(path)))
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(stage, os.O_RDONLY | os.O_CLOEXEC)
            system.wait_for_lock(handle)
            if system.is_same(handle, stage):
                return stage, handle
            # Another process removed it as abandoned before it was locked.
            os.close(handle)


def _make_folder(prefix: str, folder: Path) -> str:
    stage = tempfile.mkdtemp(prefix=prefix, dir=folder)
    # mkdtemp makes private folders; a result is as readable as any other folder of the user.
    os.chmod(stage, 0o777 & ~_umask())  # noqa: PTH101
    return stage


def _make_file(prefix: str, folder: Path) -> str:
    handle, stage = tempfile.mkstemp(prefix=prefix, dir=folder)
    os.fchmod(handle, 0o666 & ~_umask())
    os.close(handle)
    return stage


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
