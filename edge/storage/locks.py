"""One writer an output: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge.console import say
from edge.errors import UserError
from edge.storage import system
from edge.storage.faults import check_path, follow, storage_errors
from edge.storage.leftovers import lock_file, recover

# A process that only looks whether a lock is held holds it for a moment.
_TRIES, _PAUSE_S = 5, 0.02
# What this process holds, and how many blocks deep.
_held: dict[Path, int] = {}


@contextlib.contextmanager
def output_lock(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `target` for this process alone, having mended what a dead one left there.

    May be nested. wait: for the other process that holds it, instead of being refused.
    Raises UserError while another process writes it, or a folder that it lies in; StorageError
    where it cannot be written.
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
    """Make a folder and those above it; those that stay empty are removed again."""
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()


def _check_outer(target: Path, path: Path) -> None:
    """Refuse what lies in a folder that another process writes as a whole."""
    for outer in path.parents:
        if outer in _held or not outer.name:
            continue
        with system.opened(lock_file(outer)) as handle:
            if handle is not None and _is_held(handle):
                raise _refusal(target, handle, where=f"{outer} ")


@contextlib.contextmanager
def _locked(target: Path, path: Path, *, wait: bool) -> Iterator[None]:
    file = lock_file(path)
    handle = _acquire(target, file, wait=wait)
    try:
        yield
    finally:
        # Before it is let go: who opened it meanwhile sees that it is another one now.
        if system.is_same(handle, file):
            system.remove(file)
        os.close(handle)


def _acquire(target: Path, file: Path, *, wait: bool) -> int:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            if _is_held(handle):
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


def _is_held(handle: int) -> bool:
    """Whether another process holds the lock; if not, it is this one's now."""
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
