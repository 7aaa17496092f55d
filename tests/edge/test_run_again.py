"""The same command again, after an edit: what an edit decides is done again, the rest is kept.

scripts/storm/edits.py does it for every field.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.pipeline.config import RunRecipe
from edge.pipeline.run import RunInputs, run

Edit = Callable[[Path], Any]
TRAINING = """
name: own
summary: One step.
stages: [{max_steps: 1, learning_rate: 1.0e-4, terms: [{match: logits}]}]
"""
TINY = {"min_runs": 2, "max_s": 1, "rounds": 2, "warmup_runs": 1, "warmup_s": 0}


@pytest.fixture(scope="module")
def folder(bert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    rows = "text\tlabel\na good film\tpositive\na bad plot\tnegative\nnot great\tneutral\n"
    for name in ("train", "eval", "calibration"):
        (folder / f"{name}.tsv").write_text(rows)
    (folder / "own.yaml").write_text(TRAINING)
    again(folder, bert_checkpoint)
    return folder


def again(folder: Path, teacher: Path) -> None:
    recipe = RunRecipe(
        name="tiny",
        distill={"recipe": str(folder / "own.yaml"), "student": "layers=1", "max_length": 16},
        convert={
            "format": ["onnx"],
            "precision": ["fp32"],
            "seq_length": [16],
            "golden_texts": 1,
            "calibration": str(folder / "calibration.tsv"),
        },
        benchmark={"baseline": "none", "seq_length": 16, "protocol": TINY},
    )
    data = {name: str(folder / f"{name}.tsv") for name in ("train", "eval")}
    run(recipe, RunInputs(teacher=str(teacher), output=folder / "out", **data))


def _flip(name: str) -> Edit:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return edit


def _rate(folder: Path) -> None:
    (folder / "own.yaml").write_text(TRAINING.replace("1.0e-4", "5.0e-2"))


def _append(name: str) -> Edit:
    return lambda folder: (folder / name).open("a").write("a plot\tneutral\n")


def _no_edit(folder: Path) -> None:
    (folder / "own.yaml").write_text((folder / "own.yaml").read_text() + "# A remark.\n")


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (_no_edit, "benchmark: done before, kept"),
        (_rate, "distill: done again, recipe changed"),
        (_flip("out/student/model.safetensors"), "student was altered"),
        (_append("calibration.tsv"), "convert: done again, calibration changed"),
        (_flip("out/bundle/golden.json"), "bundle was altered"),
    ],
)
def test_what_an_edit_decides_is_done_again(
    folder: Path, bert_checkpoint: Path, capfd: pytest.CaptureFixture[str], edit: Edit, line: str
) -> None:
    edit(folder)
    again(folder, bert_checkpoint)
    said = capfd.readouterr().err
    assert line in said
    assert ("again" in said) == (edit is not _no_edit)
    recorded = json.loads((folder / "out" / "run.json").read_text())["parts"]
    assert set(recorded) == {"distill", "convert", "evaluate", "benchmark"}
    again(folder, bert_checkpoint)
    assert "again" not in capfd.readouterr().err
