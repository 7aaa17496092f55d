"""System calls behind every write: exchange two folders, flush to the disk, lock, remove."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# RENAME_EXCHANGE of renameat2 on Linux, RENAME_SWAP of renamex_np on macOS.
_EXCHANGE = 2
_AT_FDCWD = -100
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL}


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False if the system or file system cannot.

    Raises OSError for an error of the paths themselves.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    encoded = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        call: Any = getattr(libc, "renamex_np", None)
        arguments: tuple[Any, ...] = (*encoded, _EXCHANGE)
    else:
        call = getattr(libc, "renameat2", None)
        arguments = (_AT_FDCWD, encoded[0], _AT_FDCWD, encoded[1], _EXCHANGE)
    if call is None:
        return False
    if call(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(second))


def flush(path: Path) -> None:
    """Flush a file, or a folder with all its contents, to the disk."""
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            flush(entry)
        flush_entry(path)
    elif path.is_file() and not path.is_symlink():
        flush_entry(path)


def flush_entry(path: Path) -> None:
    """Flush one file, or the directory entries of one folder, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # On macOS, fsync leaves the data in the cache of the drive.
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is None:
            os.fsync(handle)
        else:
            fcntl.fcntl(handle, full)
    except OSError as error:
        # Some file systems cannot flush a folder.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:
            raise
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder; False if another process holds it, None without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def wait_for_lock(handle: int) -> None:
    """Lock an open file or folder, waiting for other processes."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def is_same(handle: int, path: Path) -> bool:
    """Return True if `path` is still the file or folder opened as `handle`."""
    try:
        path_status = os.lstat(path)
    except OSError:
        return False
    handle_status = os.fstat(handle)
    return (path_status.st_dev, path_status.st_ino) == (handle_status.st_dev, handle_status.st_ino)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """Yield a handle of a file or folder; None if it is missing or a symbolic link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        handle = None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, also one with read-only folders inside; never raises."""
    if not path.is_dir() or path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(stat.S_IRWXU)
        shutil.rmtree(path, ignore_errors=True)
