from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.pipeline.ledger import LEDGER_FILE, Ledger, claim, is_run

Capture = pytest.CaptureFixture[str]


class Work:
    """A part that writes a folder and counts how often it is done."""

    def __init__(self, folder: Path) -> None:
        self.output, self.times = folder / "out", 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        self.output.mkdir(exist_ok=True)
        (self.output / "weights").write_text(str(self.times))
        return {"times": self.times}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def _part(work: Work, folder: Path, **made_from: Any) -> int:
    made_from = {"recipe": {"rate": 0.1}, "versions": {"torch": "2"}, **made_from}
    found = Ledger(folder).part("train", made_from, work, output=work.output)
    return int(found["times"])


def test_what_has_not_changed_is_kept(work: Work, tmp_path: Path, capsys: Capture) -> None:
    claim(tmp_path)
    assert is_run(tmp_path)
    assert _part(work, tmp_path, pair=(1, 2)) == 1
    assert "again" not in capsys.readouterr().err
    assert _part(work, tmp_path, pair=[1, 2]) == 1
    assert "train: done before, kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"rate": 0.2}}, "recipe changed"),
        ({"versions": {"torch": "3"}}, "version of torch changed"),
        ({"more": True}, "more changed"),
    ],
)
def test_another_input_does_it_again(
    work: Work, tmp_path: Path, capsys: Capture, changes: dict[str, Any], words: str
) -> None:
    _part(work, tmp_path)
    assert _part(work, tmp_path, **changes) == 2
    assert f"train: done again, {words}" in capsys.readouterr().err
    assert _part(work, tmp_path, **changes) == 2


def _flip(work: Work) -> None:
    (work.output / "weights").write_text("x")


def _add(work: Work) -> None:
    (work.output / "more").touch()


def _empty(work: Work) -> None:
    (work.output / "weights").unlink()


def _remove(work: Work) -> None:
    (work.output / "weights").unlink()
    work.output.rmdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, "out was altered"),
        (_add, "out was altered"),
        (_empty, "out was altered"),
        (_remove, "out is missing"),
    ],
)
def test_a_damaged_output_is_made_again(
    work: Work, tmp_path: Path, capsys: Capture, damage: Callable[[Work], None], words: str
) -> None:
    _part(work, tmp_path)
    damage(work)
    assert _part(work, tmp_path) == 2
    assert words in capsys.readouterr().err
    assert _part(work, tmp_path) == 2


def test_a_symbolic_link_to_a_folder_counts_by_what_is_in_it(work: Work, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "deep").write_text("a")
    work.output.mkdir()
    (work.output / "link").symlink_to(elsewhere)
    _part(work, tmp_path)
    (elsewhere / "deep").write_text("b")
    assert _part(work, tmp_path) == 2


def test_no_byte_of_the_ledger_can_be_damaged_and_count(work: Work, tmp_path: Path) -> None:
    _part(work, tmp_path)
    file = tmp_path / LEDGER_FILE
    whole = file.read_bytes()
    undamaged = json.loads(whole)
    for place in range(0, len(whole) - 2, 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        done = Ledger(tmp_path)._parts.get("train")
        assert done is None or done.model_dump() == undamaged["parts"]["train"]
        file.write_bytes(whole[:place])
        assert Ledger(tmp_path)._parts == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"parts": []}',
        '{"parts": {"train": null}}',
        '{"parts": {"train": {"fingerprint": "0", "result": {}}}}',
    ],
)
def test_another_ledger_only_means_work(work: Work, tmp_path: Path, text: str) -> None:
    (tmp_path / LEDGER_FILE).write_text(text)
    assert _part(work, tmp_path) == 1


def test_what_json_cannot_hold_is_refused(work: Work, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        _part(work, tmp_path, path=tmp_path)
    assert work.times == 0
