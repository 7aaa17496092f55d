"""Journal of recorded turns on disk, from which an interrupted comparison resumes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from benchmark.devices import Turn
from edge.config import Config
from edge.console import counted, say
from edge.storage import storage_errors, write_text

# Nanoseconds of three months: no turn, and no count of runs, comes near.
_MOST = 1 << 53


class _Header(Config):
    """The first line: fingerprint of everything that determines the measurements."""

    mark: str


class _Interruption(Config):
    """A line that counts how often the measurement was resumed."""

    interruption: int = Field(ge=0, le=_MOST)


class _Entry(Config):
    """A recorded turn; at: comparison, label of the model, number of the round."""

    at: tuple[str, str, int]
    turn: Turn

    @field_validator("turn")
    @classmethod
    def _possible(cls, turn: Turn) -> Turn:
        values = (*turn.raw_ns, turn.duration_s, turn.processor_s or 0, turn.count - 1)
        if not any(turn.raw_ns) or not all(0 <= value <= _MOST for value in values):
            raise ValueError("no turn takes that long")
        return turn


class Journal:
    """One line per turn, after a header line; without a path nothing is written.

    mark: fingerprint of everything that determines the measurements. A journal with another mark,
    or a damaged one, is started over. interruptions: how often the measurement was resumed.
    Raises StorageError when it cannot be written.
    """

    def __init__(self, path: Path | None, mark: str) -> None:
        self._path = path
        self._turns: dict[tuple[str, str, int], Turn] = {}
        self.interruptions = 0
        if path is None:
            return
        lines = self._restore(path, mark)
        if self._turns:
            self.interruptions += 1
            say(f"going on with {path.name}: {counted(len(self._turns), 'turn')} recorded before")
            lines.append(json.dumps({"interruption": self.interruptions}))
        # As a whole: a line that was cut off by the interruption must not run into the next one.
        write_text(path, "".join(f"{line}\n" for line in lines))

    def turn(self, comparison: str, label: str, number: int) -> Turn | None:
        """Return the recorded turn of a model in a round, or None."""
        return self._turns.get((comparison, label, number))

    def record(self, comparison: str, label: str, number: int, turn: Turn) -> None:
        """Append a turn."""
        self._turns[comparison, label, number] = turn
        if self._path is not None:
            line = json.dumps({"at": [comparison, label, number], "turn": asdict(turn)})
            with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def close(self) -> None:
        """Delete the journal."""
        remove_journal(self._path)

    def _restore(self, path: Path, mark: str) -> list[str]:
        """Read the turns of the journal; return its lines, or a header alone to start over."""
        header = json.dumps({"mark": mark})
        try:
            lines = _whole_lines(path)
            if lines and _Header.model_validate_json(lines[0]).mark != mark:
                say(f"{path.name} is of another measurement: starting over")
                return [header]
            for line in lines[1:]:
                self._parse_line(line)
        except (ValidationError, UnicodeDecodeError):
            say(f"{path.name} is damaged, or was not written by edge benchmark: starting over")
            self._turns.clear()
            self.interruptions = 0
            return [header]
        return lines or [header]

    def _parse_line(self, line: str) -> None:
        if line.startswith('{"interruption"'):
            self.interruptions = _Interruption.model_validate_json(line).interruption
            return
        entry = _Entry.model_validate_json(line)
        self._turns[entry.at] = entry.turn


def remove_journal(path: Path | None) -> None:
    """Delete a journal whose measurement is stored elsewhere."""
    if path is not None:
        with storage_errors(path):
            path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a journal, without a truncated last one; none without a file."""
    with storage_errors(path):
        content = path.read_bytes() if os.path.lexists(path) else b""
    return content[: content.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
