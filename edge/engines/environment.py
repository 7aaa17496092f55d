"""Separate Python environments, for packages that conflict with current libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge.engines.base import Availability
from edge.process import wire

_VERSION_PROGRAM = """
import importlib.metadata
import {module}
print(importlib.metadata.version("{distribution}"))
"""


@dataclass(frozen=True)
class Environment:
    """The Python environment of a package that needs its own.

    title: name in messages. folder: folder name, beside the main environment. variable: shell
    variable that gives another Python. module, distribution: the package. remedy: how to set the
    environment up. timeout_s: for the check of the package.
    """

    title: str
    folder: str
    variable: str
    module: str
    distribution: str
    remedy: str
    timeout_s: float

    def find_python(self) -> Path | None:
        """Return its Python: the value of `variable`, unchecked, else that in `folder`, or None."""
        configured = os.environ.get(self.variable)
        if configured:
            return Path(configured)
        default = Path(sys.prefix).parent / self.folder / "bin" / "python"
        return default if default.exists() else None

    def version(self, python: Path) -> str | None:
        """Return the version of the package that `python` imports; None when it cannot."""
        program = _VERSION_PROGRAM.format(module=self.module, distribution=self.distribution)
        try:
            process = subprocess.run(
                [python, "-I", "-c", program],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return process.stdout.strip() or None if process.returncode == 0 else None

    def availability(self) -> Availability:
        """Return the availability of the package: its version, or the reason and the remedy."""
        python = self.find_python()
        if python is None:
            return Availability(None, f"{self.title} is not set up", self.remedy)
        version = self.version(python)
        if version is None:
            package = self.module.partition(".")[0]
            remedy = f"{self.remedy}, or correct {self.variable}"
            return Availability(None, f"{python} cannot import {package}", remedy)
        return Availability(version)


def worker_command(python: Path, worker: Path) -> list[str]:
    """Return the command for a worker: a file with a class `Worker` independent of this project.

    -I keeps the worker's folder, whose files could shadow packages, out of the search path.
    """
    return [str(python), "-I", wire.__file__, str(worker)]
