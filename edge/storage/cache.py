"""Where files that are made once are kept between runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edge.errors import StorageError, UserError
from edge.storage.faults import follow
from edge.storage.leftovers import home, remove_all_dead
from edge.storage.locks import output_lock

_VARIABLE = "EDGE_CACHE"


def cache_folder() -> Path:
    """Return where files made once are kept: EDGE_CACHE, or ~/.cache/edge-encoders.

    Raises UserError when that is not a folder.
    """
    named = os.environ.get(_VARIABLE)
    try:
        folder = Path(named) if named else Path.home() / ".cache" / "edge-encoders"
    except RuntimeError:
        raise UserError(f"there is no home folder for a cache: set {_VARIABLE} to one") from None
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        raise UserError(
            f"the cache {folder} cannot be used, {there} is no folder: set {_VARIABLE} to another"
        )
    return folder


def made_once(
    target: Path, make: Callable[[], object], *, is_whole: Callable[[Path], bool]
) -> Path:
    """Return `target` of the cache, which `make` writes unless it is there and whole.

    Processes that want the same wait for the one that makes it; what dead ones left goes.
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
