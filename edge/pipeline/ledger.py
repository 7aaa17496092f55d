"""Record of the finished parts of a run, from which an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.config import Config
from edge.console import say
from edge.errors import ConfigError
from edge.provenance import differences, plain
from edge.storage import sha256, write_text

LEDGER_FILE = "run.json"


def is_run(folder: Path) -> bool:
    """Return True if a folder was written by a run, which may be resumed."""
    return (folder / LEDGER_FILE).is_file()


def claim(folder: Path) -> None:
    """Mark a folder as a run's before any part is finished, so that it can be resumed."""
    if not is_run(folder):
        write_text(folder / LEDGER_FILE, '{"parts": {}}\n')


class Part(Config):
    """A finished part of a run.

    made_from: the description of its inputs. output: hash of the folder it wrote, or None. result:
    JSON-compatible. sha256: of the other fields, to detect a damaged record.
    """

    made_from: dict[str, Any]
    output: str | None
    result: dict[str, Any]
    sha256: str = ""

    def sealed(self) -> Part:
        return self.model_copy(update={"sha256": self._digest()})

    @property
    def is_whole(self) -> bool:
        return self.sha256 == self._digest()

    def _digest(self) -> str:
        values = json.dumps(self.model_dump(exclude={"sha256"}), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()


class Ledger:
    """`run.json`: the result and the inputs of each finished part.

    duration_s: by part, the time of those that this object ran.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / LEDGER_FILE
        self._parts = _read(self._file)
        self.duration_s: dict[str, float] = {}

    def part(
        self,
        name: str,
        made_from: Mapping[str, Any],
        work: Callable[[], dict[str, Any]],
        *,
        output: Path | None = None,
    ) -> dict[str, Any]:
        """Return the recorded result of a part if inputs and output are unchanged, else run `work`.

        made_from: see `edge.provenance`. output: the folder that `work` writes. A line on stderr
        says whether the part is kept, or why it is run again.
        """
        made_from = plain(made_from)
        done = self._parts.get(name)
        if done is not None:
            reason = _outdated_reason(done, made_from, output)
            if reason is None:
                say(f"{name}: done before, kept")
                return done.result
            say(f"{name}: done again, {reason}")
        start = time.monotonic()
        result = work()
        self.duration_s[name] = round(time.monotonic() - start, 1)
        digest = None if output is None else sha256(output)
        done = Part(made_from=made_from, output=digest, result=plain(result)).sealed()
        self._parts[name] = done
        parts = {key: part.model_dump() for key, part in self._parts.items()}
        write_text(self._file, json.dumps({"parts": parts}, indent=2) + "\n")
        return done.result


def _outdated_reason(done: Part, made_from: Mapping[str, Any], output: Path | None) -> str | None:
    """Return the reason a finished part is outdated, or None if it is current."""
    changed = differences(done.made_from, made_from)
    if changed:
        return f"{', '.join(changed)} changed"
    if output is None:
        return None
    if not output.is_dir():
        return f"{output} is missing"
    return None if sha256(output) == done.output else f"{output} was altered"


def _read(file: Path) -> dict[str, Part]:
    """Read the undamaged records; a part with a damaged one is run again."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))["parts"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    parts = {}
    for name, value in values:
        try:
            part = Part.build(value)
        except (ConfigError, TypeError, ValueError):
            continue
        if part.is_whole:
            parts[name] = part
    return parts
