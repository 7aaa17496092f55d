"""Other processes, which tests talk to and kill."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def process(code: str, path: Path) -> Iterator[Any]:
    """Another process that runs `code`, which knows `path`."""
    head = "import sys; from pathlib import Path; path = Path(sys.argv[1])\n"
    child = subprocess.Popen(
        [sys.executable, "-c", head + code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()
