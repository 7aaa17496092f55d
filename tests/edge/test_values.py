"""Empty names and numbers that are not finite, on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge.cli.app import run_command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "", "-o", "out"], "the path is empty"),
        (["report", "x", "-o", ""], "'--output' / '-o': the path is empty"),
        (["compare", "", "b"], "the path is empty"),
        (["benchmark", "b", "--data", ""], "'--data': it is empty"),
        (["benchmark", "b", "--format="], "'--format': it is empty"),
        (["benchmark", "b", "--threads", " "], "'--threads': it is empty"),
        (["benchmark", "", "b"], "it is empty"),
        (["benchmark", "b", "--baseline", ""], "'--baseline': it is empty"),
        (["convert", "", "-o", "out"], "it is empty"),
        (["evaluate", "b", "--data", ""], "'--data': it is empty"),
        (["verify", "bundle", "--eval", ""], "'--eval': it is empty"),
        (["verify", "bundle", "--eval="], "'--eval': it is empty"),
        (["distill", "-o", ""], "'--output' / '-o': the path is empty"),
        (["inspect", ""], "is empty"),
        (["compare", "a", "b", "--margin", "inf"], "'--margin': inf is not finite"),
        (["benchmark", "b", "--cooldown", "inf"], "'--cooldown': inf is not finite"),
        (["benchmark", "b", "--batch", "100000000"], "batch.0: .* 4096"),
        (["benchmark", "b", "--threads", "100000000"], "threads.0: .* 1024"),
    ],
)
def test_such_a_value_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A shell makes an empty path of a variable that is not set: it was the folder one is in."""
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments, debug=False) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line
    assert not list(tmp_path.iterdir())
