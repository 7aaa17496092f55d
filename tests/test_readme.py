"""What the README and docs tell people to type exists, with the options they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


def commands(page: Path) -> list[list[str]]:
    """Every shell line of a page's code blocks that begins with `edge` or `make`."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(edge|make) ", line)]


ALL = sorted({tuple(words) for page in PAGES for words in commands(page)})
EDGE = [words for words in ALL if words[0] == "edge"]


def test_the_readme_shows_the_two_commands() -> None:
    lines = [" ".join(words[:2]) for words in commands(ROOT / "README.md")]
    assert "make demo" in lines
    assert "edge run" in lines


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in ALL:
        if words[0] == "make":
            assert words[1] in targets, words


@pytest.mark.parametrize("name", sorted({words[1] for words in EDGE}))
def test_commands_and_options_exist(name: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "edge.cli.main", name, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stderr
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", found.stdout))
    for words in EDGE:
        if words[1] == name:
            options = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert options <= known, words


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
