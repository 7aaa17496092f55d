"""What CI runs: its script, and that no test is left out for want of a tool that it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_TESTS = """
import pytest

def test_tool():
    pytest.skip("node is not installed")

def test_data():
    pytest.skip("no real data here: /x does not exist")

@pytest.mark.xfail(reason="known")
def test_known():
    raise ValueError

@pytest.fixture
def browser():
    pytest.skip("/usr/bin/chromium does not exist (EDGE_CHROMIUM names the browser)")

def test_fixture(browser):
    pass
"""


@pytest.mark.parametrize(
    ("required", "summary"),
    [("1", ["1 error", "1 failed", "1 skipped", "1 xfailed"]), ("", ["1 xfailed", "3 skipped"])],
)
def test_a_tool_that_is_not_here_is_a_failure_where_tools_are_required(
    tmp_path: Path, required: str, summary: list[str]
) -> None:
    (tmp_path / "test_some.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", str(tmp_path)]
    env = {**os.environ, "EDGE_REQUIRE_TOOLS": required, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *argv], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    # Warnings of installed plugins are none of ours.
    counts = re.findall(r"\d+ (?!warning)[a-z]+(?=,| in)", done.stdout.splitlines()[-1])
    assert sorted(counts) == summary, done.stdout


def test_every_program_that_tests_look_for_is_installed() -> None:
    installs = (ROOT / ".ci" / "run").read_text()
    asked = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'shutil\.which\("([^"]+)"\)', path.read_text())
    }
    assert {"gcc", "node", "openssl", "ssh"} <= asked
    commands = re.sub(r"(?m)^\s*#.*", "", installs)
    assert [name for name in sorted(asked) if not re.search(rf"\b{name}\b", commands)] == []


def test_the_script_is_a_script() -> None:
    done = subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
