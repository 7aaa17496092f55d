"""Every command that writes: what it says of an output that cannot be written, before any work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import UserError
from tests.children import process

HOLD = (
    "from edge.storage import output_lock\n"
    "with output_lock(path): print('held', flush=True); input()\n"
)


@pytest.fixture
def commands(
    distilbert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Callable[[Path], object]]:
    """By its name, a command that would fail otherwise later on, or take long."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = folder / "rows.tsv"
    rows.write_text("text\tlabel\ngood\tpositive\nbad\tnegative\n")
    return {name: _command(name, str(distilbert_checkpoint), rows) for name in NAMES}


NAMES = ("distill", "convert", "pack", "exits", "report", "benchmark", "run", "demo")


def _command(name: str, checkpoint: str, rows: Path) -> Callable[[Path], object]:
    from edge.cli.app import app

    data = ["--train", rows, "--eval", rows]
    arguments: list[object] = {
        "distill": ["distill", "--teacher", checkpoint, "--recipe", "kd", *data],
        "convert": ["convert", checkpoint],
        "pack": ["pack", "ort-text", checkpoint],
        "exits": ["exits", checkpoint, "--cut", "1"],
        "report": ["report", rows],
        "benchmark": ["benchmark", rows.parent / "bundle", "--baseline", "none"],
        "run": ["run", "default", "--teacher", checkpoint, *data],
        "demo": ["demo"],
    }[name]

    def call(output: Path) -> None:
        path = output.with_name(f"{output.name}.onnx") if name == "pack" else output
        app([str(part) for part in (*arguments, "-o", path)], standalone_mode=False)

    return call


@pytest.fixture(params=NAMES)
def command(
    request: pytest.FixtureRequest, commands: dict[str, Callable[[Path], object]]
) -> Callable[[Path], object]:
    return commands[request.param]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """An output that another process writes, be it a folder or a pack."""
    target = tmp_path / "out"
    with process(HOLD, target) as one, process(HOLD, tmp_path / "out.onnx") as other:
        assert one.stdout.readline() == other.stdout.readline() == "held\n"
        yield target


def test_an_output_that_another_command_writes(
    command: Callable[[Path], object], held: Path
) -> None:
    before = sorted(held.parent.iterdir())
    with pytest.raises(UserError, match=r"out(\.onnx)? is being written by another edge command"):
        command(held)
    assert sorted(held.parent.iterdir()) == before


def test_a_name_that_is_too_long(command: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of 24\d bytes is too long for an output on this disk"):
        command(tmp_path / ("n" * 240))
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file(command: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/file is a file, not a folder")):
        command(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "x"
