"""The shim in C: built with gcc, preloaded, and used in a forked child."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
KILL, FULL, READ_ONLY = 0, 1, 2
MODES = {"kill": KILL, "full": FULL, "read-only": READ_ONLY}
_KILLED = -9


@dataclass(frozen=True)
class Outcome:
    """End of a child. code: exit code, negative for a signal. changes: its number of changes."""

    code: int
    changes: int
    output: str

    @property
    def was_killed(self) -> bool:
        return self.code == _KILLED

    @property
    def last_line(self) -> str:
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""


def build(folder: Path) -> Path:
    """Compile the shim into `folder`; raises CalledProcessError, or OSError without gcc."""
    library = folder / "shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def is_preloaded() -> bool:
    """Return True if this process was started with the shim."""
    return hasattr(ctypes.CDLL(None), "storm_start")


def restart_preloaded(folder: Path) -> None:
    """Restart this program with the shim, unless it is preloaded."""
    if not is_preloaded():
        environment = os.environ | {"LD_PRELOAD": str(build(folder))}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def run(
    action: Callable[[], object], folder: Path, log: Path, *, at: int = 0, mode: int = KILL
) -> Outcome:
    """Run `action` in a forked child that is killed at its change number `at` below a folder.

    at: from 1 on, 0 for never. mode: FULL lets the change fail, and all later ones that need space;
    READ_ONLY all later ones.
    """
    read_end, write_end = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read_end)
        os._exit(_in_child(action, folder, log, at, mode, write_end))
    os.close(write_end)
    _, status = os.waitpid(process, 0)
    count = os.read(read_end, 20)
    os.close(read_end)
    return Outcome(
        os.waitstatus_to_exitcode(status), int(count or 0), log.read_text(errors="replace")
    )


def _in_child(
    action: Callable[[], object], folder: Path, log: Path, at: int, mode: int, write_end: int
) -> int:
    """Run `action`; return exit code 0, that of an EdgeError, or 70 for other exceptions."""
    shim = ctypes.CDLL(None)
    shim.storm_seen.restype = ctypes.c_long
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    from edge.errors import EdgeError

    code = 0
    shim.storm_start(os.fsencode(folder), ctypes.c_long(at), ctypes.c_long(mode))
    try:
        action()
    except EdgeError as error:
        code = error.exit_code
        print(error, file=sys.stderr)
    except BaseException:
        code = 70
        traceback.print_exc()
    shim.storm_stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(write_end, str(shim.storm_seen()).encode())
    return code
