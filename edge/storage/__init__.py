"""Atomic writing of outputs: an interruption, power cut or full disk leaves no partial output.

Every output is written in the same way: its lock is acquired, the files are written to a temporary
folder beside it (the stage) and flushed, and the stage replaces the output in one step.
"""

from __future__ import annotations

from edge.storage.cache import cache_folder, made_once
from edge.storage.errors import check_path, check_target, follow, require_space, storage_errors
from edge.storage.file_set import write_together
from edge.storage.hashing import sha256, size_bytes
from edge.storage.leftovers import home, remove_all_dead
from edge.storage.locks import output_lock
from edge.storage.staging import staged_file, staged_folder, write_text
from edge.storage.system import flush

__all__ = [
    "cache_folder",
    "check_path",
    "check_target",
    "flush",
    "follow",
    "home",
    "made_once",
    "output_lock",
    "remove_all_dead",
    "require_space",
    "sha256",
    "size_bytes",
    "staged_file",
    "staged_folder",
    "storage_errors",
    "write_text",
    "write_together",
]
