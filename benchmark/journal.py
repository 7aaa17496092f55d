"""What was measured so far, on disk: an interrupted comparison goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.devices import Turn
from edge.console import say


class Journal:
    """One line a turn, behind a line that says of what; without a path nothing is kept.

    mark: of everything that decides what is measured. A journal with another mark is begun anew.
    interruptions: how often the measurement was taken up again.
    """

    def __init__(self, path: Path | None, mark: str) -> None:
        self._path = path
        self._turns: dict[tuple[str, str, int], Turn] = {}
        self.interruptions = 0
        if path is None:
            return
        lines = _lines(path)
        if lines and lines[0] == {"mark": mark}:
            for line in lines[1:]:
                self._take(line)
            if self._turns:
                self.interruptions += 1
                say(f"going on with {path.name}: {len(self._turns)} turns were recorded before")
                self._append({"interruption": self.interruptions})
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"mark": mark}) + "\n", encoding="utf-8")

    def turn(self, comparison: str, label: str, number: int) -> Turn | None:
        """What was recorded of a model in a round, if it was."""
        return self._turns.get((comparison, label, number))

    def record(self, comparison: str, label: str, number: int, turn: Turn) -> None:
        """Keep a turn."""
        self._turns[comparison, label, number] = turn
        self._append({"at": [comparison, label, number], "turn": vars(turn)})

    def close(self) -> None:
        """Everything was measured: nothing is left to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "interruption" in line:
            self.interruptions = line["interruption"]
            return
        comparison, label, number = line["at"]
        self._turns[comparison, label, number] = Turn(**line["turn"])

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; the last may be half-written, and is left out then."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
