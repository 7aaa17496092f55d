"""The cache folder of files that are built once and reused by later runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edge.errors import StorageError, UserError
from edge.storage.errors import follow
from edge.storage.leftovers import home, remove_all_dead
from edge.storage.locks import output_lock

_VARIABLE = "EDGE_CACHE"


def cache_folder() -> Path:
    """Return the cache folder: EDGE_CACHE, or ~/.cache/edge-encoders.

    Raises UserError when that is not a folder.
    """
    named = os.environ.get(_VARIABLE)
    try:
        folder = Path(named) if named else Path.home() / ".cache" / "edge-encoders"
    except RuntimeError:
        raise UserError(f"there is no home folder for a cache: set {_VARIABLE} to one") from None
    parents = folder.absolute().parents
    existing = next(path for path in (folder, *parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(
            f"the cache {folder} cannot be used, {existing} is no folder: "
            f"set {_VARIABLE} to another"
        )
    return folder


def made_once(
    target: Path, make: Callable[[], object], *, is_whole: Callable[[Path], bool]
) -> Path:
    """Return `target` in the cache, after `make` has written it unless it is complete.

    Other processes wait for the one that writes it; stages of dead processes are removed.
    Raises StorageError when the cache cannot be written.
    """
    if is_whole(target):
        return target
    try:
        with output_lock(target, wait=True):
            remove_all_dead(home(follow(target)))
            if not is_whole(target):
                make()
    except StorageError as error:
        raise StorageError(f"{error} (set {_VARIABLE} to keep the cache elsewhere)") from error
    return target
