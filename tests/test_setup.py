"""Setting up: a failure is plain and leaves no stamp, a repeat does nothing, data files ship."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What set-up reads, in a folder whose name has a space."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


def _make(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_python_that_cannot_be_used_is_named(checkout: Path) -> None:
    done = _make(checkout, "setup", PYTHON="/absent/python")
    assert done.returncode != 0
    assert "PYTHON=/absent/python is not a Python 3.10-3.12" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_failed_installation_shows_the_error_and_leaves_no_stamp(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = _make(checkout, "setup", PYTHON=sys.executable, **nowhere)
    assert done.returncode != 0
    assert "ERROR: " in done.stderr
    assert "pip could not fill .venv" in done.stderr
    assert not stamp.exists()


def test_a_repeat_does_nothing(checkout: Path) -> None:
    for name in (".venv", ".venv-legacy"):
        (checkout / name).mkdir()
        (checkout / name / ".installed").touch()
    done = _make(checkout, "setup", PYTHON="/absent/python")
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout


def test_every_data_file_ships() -> None:
    """setuptools leaves out, without a word, what no pattern in pyproject.toml names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = {
        file
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    present = {
        file
        for package in ("edge", "distill", "converters", "benchmark")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    }
    assert sorted(present - shipped) == []
    assert ROOT / "edge" / "bundle" / "schema.json" in shipped
