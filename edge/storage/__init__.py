"""Writing results so that an interruption, a power cut or a full disk leaves nothing half-written.

Every output goes the same way: a lock says who writes it, a stage beside it takes the files, they
are flushed to the disk, and the stage takes the output's place in one step.
"""

from __future__ import annotations

from edge.storage.cache import cache_folder, made_once
from edge.storage.faults import check_path, check_target, follow, require_space, storage_errors
from edge.storage.hashing import sha256, size_bytes
from edge.storage.leftovers import home, remove_all_dead
from edge.storage.locks import output_lock
from edge.storage.staging import staged_file, staged_folder, write_text
from edge.storage.system import flush
from edge.storage.together import write_together

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
