"""Writing results so that an interruption or a full disk leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.errors import StorageError, UserError

_CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    """Where files made once are kept between runs: EDGE_CACHE, or ~/.cache/edge-encoders."""
    return Path(os.environ.get("EDGE_CACHE") or Path.home() / ".cache" / "edge-encoders")


@contextlib.contextmanager
def staged_folder(target: Path, *, replaces: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` when the block succeeds.

    `replaces(target)` says whether an existing folder there may be replaced. Whatever goes wrong
    in the block, Ctrl-C included, the temporary folder is removed and `target` is as it was.
    Raises UserError when the target is taken, StorageError when it cannot be written.
    """
    check_target(target, replaces=replaces)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        prefix = f".{target.name}.partial-{os.getpid()}-"
        stage = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        # mkdtemp makes private folders; a result is as readable as any other folder of the user.
        stage.chmod(0o777 & ~_umask())
    try:
        with storage_errors(target):
            yield stage
            _swap(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_target(target: Path, *, replaces: Callable[[Path], bool]) -> None:
    """Refuse a target that exists and may not be replaced; raises UserError."""
    if not target.exists() and not target.is_symlink():
        return
    empty = target.is_dir() and not any(target.iterdir())
    if not empty and not (target.is_dir() and replaces(target)):
        raise UserError(
            f"{target} exists and was not written by this command: "
            "choose another --output or remove it"
        )


def require_space(target: Path, needed_bytes: int) -> None:
    """Raise StorageError when the disk of `target` has less than `needed_bytes` left.

    Native converters end the whole process on a full disk, so it is found out before they start.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageError(
            f"no space left for {target}: about {needed_bytes / 1e6:.0f} MB are needed and "
            f"{free / 1e6:.0f} MB are free: free some space and run again"
        )


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a StorageError that names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_space(target) from error
        if error.errno in {errno.EACCES, errno.EROFS, errno.EPERM}:
            raise StorageError(f"{target} cannot be written: {error.strerror}") from error
        raise
    except Exception as error:
        # Libraries wrap the system's error in classes and words of their own.
        if re.search(r"No space left on device|os error 28\b|inline_container", str(error)):
            raise _no_space(target) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in _files(path))
    return path.stat().st_size


def sha256(path: Path) -> str:
    """Hash of a file; of a folder, the hash of its sorted relative paths and their hashes."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in _files(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _no_space(target: Path) -> StorageError:
    return StorageError(f"no space left while writing {target}: free some space and run again")


def _remove_abandoned(target: Path) -> None:
    """Remove temporary folders of this target whose process was killed outright."""
    for stage in target.parent.glob(f".{target.name}.partial-*"):
        pid = stage.name.rpartition(".partial-")[2].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(stage, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _swap(stage: Path, target: Path) -> None:
    """Put `stage` in the place of `target`, keeping the old one until the new one stands."""
    if not target.exists():
        stage.rename(target)
        return
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    target.rename(old)
    try:
        stage.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
