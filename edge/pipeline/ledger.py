"""Which parts of a run are done: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.console import say
from edge.storage import sha256, write_text

LEDGER_FILE = "run.json"


def is_run(folder: Path) -> bool:
    """Whether a folder was written by a run, and may be continued."""
    return (folder / LEDGER_FILE).is_file()


def claim(folder: Path) -> None:
    """Mark a folder as a run's from its first moment on, so that it can be continued."""
    if not is_run(folder):
        write_text(folder / LEDGER_FILE, '{"parts": {}}\n')


class Ledger:
    """`run.json`: the result of each finished part, with a fingerprint of what it was made from."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LEDGER_FILE
        self._parts: dict[str, dict[str, Any]] = {}
        if self._file.is_file():
            try:
                self._parts = json.loads(self._file.read_text(encoding="utf-8"))["parts"]
            except (ValueError, KeyError, TypeError):
                self._parts = {}  # an unreadable ledger only means that work is done again

    def part(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[], dict[str, Any]],
        *,
        still_there: Callable[[], bool] = lambda: True,
    ) -> dict[str, Any]:
        """The result of `work`, or the recorded one when `inputs` are the same and it still stands.

        Results are JSON-ready. A part that is done again makes every later part be done again too,
        because their inputs name its fingerprint.
        """
        mark = fingerprint(inputs)
        done = self._parts.get(name)
        if done and done["fingerprint"] == mark and still_there():
            say(f"{name}: done before, kept")
            result: dict[str, Any] = done["result"]
            return result
        result = work()
        self._parts[name] = {"fingerprint": mark, "result": result}
        write_text(self._file, json.dumps({"parts": self._parts}, indent=2) + "\n")
        return result

    def mark(self, name: str) -> str:
        """The fingerprint of a finished part."""
        return str(self._parts[name]["fingerprint"])


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Hash of JSON-ready inputs; a value that is a path of a file or folder counts by content."""
    solid = {
        key: sha256(value) if isinstance(value, Path) and value.exists() else str(value)
        for key, value in inputs.items()
    }
    return hashlib.sha256(json.dumps(solid, sort_keys=True).encode()).hexdigest()
