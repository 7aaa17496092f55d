"""Errors of the file system as one-line errors that name the path, and checks of output paths."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.console import human_bytes
from edge.errors import StorageError, UserError
from edge.storage.leftovers import entries, home

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EIO, errno.EFBIG, errno.EMLINK),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ETXTBSY, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EILSEQ),
}
# Maximum length added to the name of an output by its temporary files.
_SUFFIX_BYTES = 40
_NAME_BYTES = 255


def follow(target: Path) -> Path:
    """Resolve all symbolic links of `target`; raises StorageError for a cycle of links."""
    path = Path(os.path.realpath(target))
    if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink raises for names that are too long
        raise StorageError(f"{target} cannot be written: it is a link that leads back to itself")
    return path


def check_target(target: Path, *, replaces: Callable[[Path], bool], as_whole: bool = True) -> None:
    """Raise UserError for a folder that must not be replaced, or a path that cannot be created.

    as_whole: the folder is replaced by another one; otherwise files in it are written.
    Raises StorageError for an error of the file system.
    """
    with storage_errors(target):
        path = follow(target)
        check_path(target)
        if not path.exists():
            return
        if as_whole:
            _check_movable(target, path)
        empty = path.is_dir() and not entries(path)
        if not empty and not (path.is_dir() and replaces(path)):
            raise UserError(
                f"{target} exists and was not written by this command: "
                "choose another --output or remove it"
            )


def _check_movable(target: Path, path: Path) -> None:
    if os.path.ismount(path):
        raise UserError(f"{target} is a mount point: name a folder inside it")
    if home(path) == path:
        raise UserError(
            f"{target} cannot be replaced, because {path.parent} may not be written: "
            "name a folder inside it"
        )
    if is_working_folder(path):
        raise UserError(f"{target} is the folder you are in: name a folder inside it")


def is_working_folder(path: Path) -> bool:
    """Return True if the working directory of this process is in `path`."""
    try:
        return Path.cwd().is_relative_to(path)
    except OSError:
        return False


def check_path(target: Path) -> None:
    """Raise UserError for an output below a file, or with a name too long for the file system."""
    path, folder = follow(target), check_folder(target)
    limit = _longest_name(folder)
    names = dict.fromkeys(path.parent.relative_to(folder).parts, limit)
    names[path.name] = limit - _SUFFIX_BYTES
    for name, max_bytes in names.items():
        size = len(os.fsencode(name))
        if size > max_bytes:
            raise UserError(
                f"the name '{name[:20]}...' of {size} bytes is too long for an output on this "
                f"disk: choose one of at most {max_bytes} bytes"
            )


def check_folder(target: Path) -> Path:
    """Return the nearest existing parent of `target`; raises UserError if it is a file."""
    folder = next(parent for parent in follow(target).parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UserError(f"{target} cannot be written: {folder} is a file, not a folder")
    return folder


def _longest_name(folder: Path) -> int:
    try:
        limit = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _NAME_BYTES
    return limit if limit > 0 else _NAME_BYTES


def require_space(target: Path, needed_bytes: int) -> None:
    """Raise StorageError when the disk of `target` has less than `needed_bytes` free.

    Native converters abort the whole process on a full disk, so space is checked before they start.
    """
    with storage_errors(target):
        folder = next(parent for parent in follow(target).parents if parent.exists())
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageError(
            f"no space left for {target}: about {human_bytes(needed_bytes)} are needed and "
            f"{human_bytes(free)} are free: free {human_bytes(needed_bytes - free)} and run again"
        )


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn an error of the file system into a StorageError that names `target`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(target) from error
        if error.errno in _UNWRITABLE or (error.errno == errno.ENOENT and _is_near(target, error)):
            raise StorageError(_message(target, error)) from error
        raise
    except Exception as error:
        cause = _wrapped_cause(target, error)
        if cause is None:
            raise
        if cause.errno in _FULL:
            raise _no_space(target) from error
        raise StorageError(_message(target, cause)) from error


def _wrapped_cause(target: Path, error: Exception) -> OSError | None:
    """Return the system's error behind one of a library, which wraps it in a message of its own."""
    message = str(error)
    number = re.search(r"os error (\d+)\b", message)
    if number is not None:
        cause = OSError(int(number.group(1)), "")
        return cause if cause.errno in _FULL | _UNWRITABLE else None
    if "No space left on device" in message:
        return OSError(errno.ENOSPC, "")
    # torch tells that writing failed, and nothing else.
    if re.search(r"inline_container|iostream error", message):
        return _write_probe(target) or OSError(errno.ENOSPC, "")
    return None


def _write_probe(target: Path) -> OSError | None:
    """Return the error of writing a small file beside `target`; None if there is none."""
    try:
        folder = next(parent for parent in follow(target).parents if parent.exists())
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, "")
    return None


def _message(target: Path, error: OSError) -> str:
    """Return the message of an error, naming the target or the other path that it is about."""
    reason = os.strerror(error.errno or 0)
    if error.filename is not None and not _is_near(target, error):
        return f"{os.fsdecode(error.filename)} cannot be read or written: {reason}"
    return f"{target} cannot be written: {reason}"


def _is_near(target: Path, error: OSError) -> bool:
    """Return True if an error is about the target, a sibling of it, or a parent folder."""
    if not isinstance(error.filename, (str, bytes)):
        return False
    path = Path(os.fsdecode(error.filename)).absolute()
    return any(
        path.is_relative_to(place.parent) or place.is_relative_to(path)
        for place in (target.absolute(), Path(os.path.realpath(target)))
    )


def _no_space(target: Path) -> StorageError:
    return StorageError(f"no space left while writing {target}: free some space and run again")
