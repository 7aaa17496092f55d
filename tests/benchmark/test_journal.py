"""The journal of a measurement: what it goes on from, and what it starts over from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.devices import Turn
from benchmark.measure.journal import Journal, remove_journal
from edge.errors import StorageError

TURN = Turn(raw_ns=[5, 6], duration_s=0.1)
LINE: dict[str, Any] = {"at": ["128 tokens", "a", 0], "turn": {"raw_ns": [5, 6], "duration_s": 0.1}}


def test_turns_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "measuring.jsonl"
    Journal(path, "mark").record("128 tokens", "a", 0, TURN)
    for times in (1, 2):
        journal = Journal(path, "mark")
        assert journal.turn("128 tokens", "a", 0) == TURN
        assert journal.interruptions == times
    remove_journal(path)
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_does_not_run_into_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "measuring.jsonl"
    Journal(path, "mark").record("128 tokens", "a", 0, TURN)
    with path.open("a") as file:
        file.write('{"at": ["128')
    Journal(path, "mark").record("128 tokens", "a", 1, TURN)
    journal = Journal(path, "mark")
    assert journal.turn("128 tokens", "a", 0) == journal.turn("128 tokens", "a", 1) == TURN


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"at": ["128 tokens", "a", 1], "turn": {"ns": [5], "duration_s": 0.1}}),
        json.dumps({"at": ["128 tokens", "a", 1], "turn": {"raw_ns": "many", "duration_s": 1}}),
        *(
            json.dumps({"at": ["128 tokens", "a", 1], "turn": {**LINE["turn"], **changes}})
            for changes in (
                {"raw_ns": []},
                {"raw_ns": [-5, 6]},
                {"raw_ns": [0, 0]},
                {"raw_ns": [10**30]},
                {"duration_s": float("nan")},
                {"duration_s": -1},
                {"runs": 0},
            )
        ),
        '{"interruption": -1}',
        json.dumps({"at": ["a"], "turn": LINE["turn"]}),
        json.dumps({"turn": LINE["turn"]}),
        json.dumps({"interruption": "x"}),
        json.dumps({"model": "another program's"}),
        "[]",
        "null",
        "not JSON",
        "",
        "\x00\x00\x00",
        "\udcff",
    ],
)
def test_a_damaged_journal_is_started_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    path = tmp_path / "measuring.jsonl"
    text = "\n".join([json.dumps({"mark": "mark"}), json.dumps(LINE), line, json.dumps(LINE), ""])
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    journal = Journal(path, "mark")
    assert journal.turn("128 tokens", "a", 0) is None
    assert journal.interruptions == 0
    assert "measuring.jsonl is damaged, or was not written by" in capfd.readouterr().err
    assert path.read_text() == '{"mark": "mark"}\n'


@pytest.mark.parametrize("header", ['{"mark": "another"}', '{"mark": 5}', '{"at": 1}', "text"])
def test_a_journal_of_something_else_is_started_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], header: str
) -> None:
    path = tmp_path / "measuring.jsonl"
    path.write_text(f"{header}\n{json.dumps(LINE)}\n")
    assert Journal(path, "mark").turn("128 tokens", "a", 0) is None
    assert "starting over" in capfd.readouterr().err


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """/proc stands for a read-only disk: there even root cannot write."""
    for path in (tmp_path, Path("/proc/edge.measuring.jsonl")):
        with pytest.raises(StorageError, match=f"{path} cannot be written: "):
            Journal(path, "mark")
    path = tmp_path / "measuring.jsonl"
    journal = Journal(path, "mark")
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=f"{path} cannot be written: Is a directory"):
        journal.record("128 tokens", "a", 0, TURN)
