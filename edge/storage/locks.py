"""Output locks: one writer per output; the system releases a lock when its process ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge.console import say
from edge.errors import UserError
from edge.storage import system
from edge.storage.errors import check_path, follow, storage_errors
from edge.storage.leftovers import lock_file, recover

# Retries, because a process that only tests a lock holds it briefly.
_TRIES, _PAUSE_S = 5, 0.02
# Outputs locked by this process -> depth of nested blocks.
_held: dict[Path, int] = {}


@contextlib.contextmanager
def output_lock(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock `target` for this process, and recover from the write of a dead process.

    May be nested. wait: wait for another process that holds the lock, instead of raising.
    Raises UserError while another process writes `target` or a folder that contains it;
    StorageError when it cannot be written.
    """
    path = follow(target)
    if path in _held:
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    check_path(target)
    with contextlib.ExitStack() as stack:
        with storage_errors(target):
            stack.enter_context(_folders(path.parent))
            _check_outer(target, path)
            stack.enter_context(_locked(target, path, wait=wait))
            recover(path)
        _held[path] = 1
        stack.callback(_held.pop, path)
        yield


@contextlib.contextmanager
def _folders(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; new ones that stay empty are removed at the end."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _check_outer(target: Path, path: Path) -> None:
    """Raise UserError if another process writes a folder that contains `path`."""
    for outer in path.parents:
        if outer in _held or not outer.name:
            continue
        with system.opened(lock_file(outer)) as handle:
            if handle is not None and _is_locked_by_other(handle):
                raise _refusal(target, handle, where=f"{outer} ")


@contextlib.contextmanager
def _locked(target: Path, path: Path, *, wait: bool) -> Iterator[None]:
    file = lock_file(path)
    handle = _acquire(target, file, wait=wait)
    try:
        yield
    finally:
        # Before the release: a process that has opened it sees that the path changed.
        if system.is_same(handle, file):
            system.remove(file)
        os.close(handle)


def _acquire(target: Path, file: Path, *, wait: bool) -> int:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            if _is_locked_by_other(handle):
                if not wait:
                    raise _refusal(target, handle)
                say(f"waiting for {target}, which another edge command{_holder(handle)} writes")
                system.wait_for_lock(handle)
            if system.is_same(handle, file):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_locked_by_other(handle: int) -> bool:
    """Try to acquire the lock; return True if another process holds it."""
    for _ in range(_TRIES):
        if system.try_lock(handle) is not False:
            return False
        time.sleep(_PAUSE_S)
    return True


def _refusal(target: Path, handle: int, *, where: str = "") -> UserError:
    return UserError(
        f"{where or f'{target} '}is being written by another edge command{_holder(handle)}: "
        "wait until it has ended, or choose another --output"
    )


def _holder(handle: int) -> str:
    process = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    return f" (process {process})" if process.isdigit() else ""
