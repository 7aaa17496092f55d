"""Hashes and sizes of files and folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in _files(path))
    return path.stat().st_size


def sha256(path: Path) -> str:
    """Return the hash of a file, or of a folder's sorted relative paths and file hashes."""
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


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, following symbolic links to folders."""
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        if Path(parent).is_symlink() and Path(parent).parent.resolve().is_relative_to(
            Path(parent).resolve()
        ):
            folders.clear()  # a link to one of its parent folders
            continue
        files += [path for name in names if (path := Path(parent, name)).is_file()]
    return sorted(files)
