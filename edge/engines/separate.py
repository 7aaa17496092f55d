"""A Python environment beside ours, for what cannot be loaded together with current libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge.engines.base import Availability
from edge.process import wire

_LOOK = """
import importlib.metadata
import {module}
print(importlib.metadata.version("{distribution}"))
"""


@dataclass(frozen=True)
class Environment:
    """Where a package lives that has an environment of its own.

    title: what it is called when it is missing. folder: beside our environment. variable: of the
    shell, naming another Python. module, distribution: what it is there for. remedy: how to set it
    up. timeout_s: for looking whether it works.
    """

    title: str
    folder: str
    variable: str
    module: str
    distribution: str
    remedy: str
    timeout_s: float

    def find_python(self) -> Path | None:
        """Its Python: the one that `variable` names, whether it works or not, else in `folder`."""
        named = os.environ.get(self.variable)
        if named:
            return Path(named)
        beside = Path(sys.prefix).parent / self.folder / "bin" / "python"
        return beside if beside.exists() else None

    def version(self, python: Path) -> str | None:
        """The version of the package that `python` imports; None when it cannot."""
        look = _LOOK.format(module=self.module, distribution=self.distribution)
        try:
            done = subprocess.run(
                [python, "-I", "-c", look],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() or None if done.returncode == 0 else None

    def availability(self) -> Availability:
        """Whether the package works here; if not, why, and the command that adds it."""
        python = self.find_python()
        if python is None:
            return Availability(None, f"{self.title} is not set up", self.remedy)
        found = self.version(python)
        if found is None:
            package = self.module.partition(".")[0]
            remedy = f"{self.remedy}, or correct {self.variable}"
            return Availability(None, f"{python} cannot import {package}", remedy)
        return Availability(found)


def worker_command(python: Path, worker: Path) -> list[str]:
    """What starts a worker: a file with a class `Worker` that needs nothing of this project.

    -I: the worker's folder, where a file may be called like a package, is not searched.
    """
    return [str(python), "-I", wire.__file__, str(worker)]
