"""What is said stays visible while libraries are hushed; foreign text is made printable."""

from __future__ import annotations

import ast
import json
import os
import threading
import unicodedata
from pathlib import Path

import pytest

from edge.cli.options import print_json, print_table
from edge.console import counted, hush, printable, say, show, three_figures

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b[2J\x1b]0;title\x07a\tb\nc\r\x9b31m\u202eabc\u2066\u2028\ud800\x7f"


def test_hush_holds_back_what_libraries_write(capfd: pytest.CaptureFixture[str]) -> None:
    with hush():
        os.write(1, b"noise\n")
        with hush():
            os.write(2, b"noise\n")
        os.write(2, b"noise\n")
        say("progress")
    os.write(2, b"after\n")
    found = capfd.readouterr()
    assert found.out == ""
    assert found.err == "progress\nafter\n"


def test_threads_that_hush_do_not_disturb_what_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with hush():
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        say(str(number))
    stop.set()
    for thread in threads:
        thread.join()
    found = capfd.readouterr()
    assert found.err.split() == [str(number) for number in range(300)]


def steers(character: str) -> bool:
    """Whether a terminal does something else with a character than to draw it."""
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return (
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in bidirectional
    )


def test_every_character_that_steers_becomes_an_escape_and_no_other_does() -> None:
    for code in range(0x110000):
        character = chr(code)
        shown = printable(character)
        if steers(character):
            assert shown.isascii() and shown.startswith("\\"), hex(code)
        elif unicodedata.category(character) != "Cf":
            assert shown == character, hex(code)
    for character in "\xad\u180e\u2060\u2064\ufff9\U000e0041":
        assert printable(f"a{character}b").isascii(), "it is drawn as nothing"
    assert printable("r\u00e9sum\u00e9 \u6f22 \U0001f469\u200d\U0001f680") == "résumé 漢 👩‍🚀"


def test_foreign_text_is_printable_wherever_it_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    say(HOSTILE)
    show(HOSTILE)
    print_table(HOSTILE, ("name", HOSTILE), [(HOSTILE, "1")])
    found = capfd.readouterr()
    for line in (found.out + found.err).splitlines():
        assert not any(steers(character) for character in line.replace("\t", ""))
    assert len(found.out.splitlines()) == 3
    assert found.out.splitlines()[1].count("\t") == 1


def test_json_says_what_was_there_and_steers_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({HOSTILE: [HOSTILE, "漢"]})
    found = capfd.readouterr().out
    assert not any(steers(character) for character in found.replace("\n", ""))
    assert json.loads(found) == {HOSTILE: [HOSTILE, "漢"]}
    assert "漢" in found


def test_nothing_is_printed_past_the_console() -> None:
    """`print` and its kin are called where text is made printable, and nowhere else."""
    allowed = {
        "edge/console.py",
        "edge/cli/main.py",
        "edge/cli/app.py",
        "edge/cli/options.py",
        # A program of its own, whose output a shell reads.
        "distill/training/launch/__main__.py",
    }
    for package in ("edge", "distill", "converters", "benchmark"):
        for file in (ROOT / package).rglob("*.py"):
            if str(file.relative_to(ROOT)) in allowed:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in {"print", "typer.echo", "click.echo"}, file
                    assert not called.endswith(("stdout.write", "stderr.write")), file


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.2, "0.200"),
        (0.01, "0.0100"),
        (0.9994, "0.999"),
        (0.9996, "1.00"),
        (0.0001, "0.000100"),
        (0.0000123, "1.23e-05"),
        (-5, "-5.00"),
        (-0.25, "-0.250"),
        (99.96, "100"),
    ],
)
def test_three_figures_are_three(value: float, text: str) -> None:
    assert three_figures(value) == text


def test_a_number_agrees_with_its_noun() -> None:
    counts = [counted(count, "row") for count in (0, 1, 2, 2000)]
    assert counts == ["0 rows", "1 row", "2 rows", "2,000 rows"]
