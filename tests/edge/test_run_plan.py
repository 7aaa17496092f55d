from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.errors import CheckpointError, UserError
from edge.pipeline.config import RunRecipe
from edge.pipeline.run import RunInputs, run

RECIPE: dict[str, dict[str, Any]] = {
    "distill": {"recipe": "kd", "student": "layers=1"},
    "convert": {"format": ["onnx", "tflite"], "seq_length": [16, 32]},
    "benchmark": {"baseline": "none", "seq_length": 16},
}


@pytest.fixture
def attempt(bert_checkpoint: Path, tmp_path: Path) -> Callable[..., None]:
    rows = "text\tlabel\na good film\tpositive\na bad plot\tnegative\nnot great\tneutral\n"
    (tmp_path / "data.tsv").write_text(rows)
    (tmp_path / "other.tsv").write_text("words\tlabel\na\tpositive\n")

    def run_it(section: str, teacher: Path = bert_checkpoint, **values: Any) -> None:
        sections = {**RECIPE, section: {**RECIPE[section], **values}}
        data = str(tmp_path / "data.tsv")
        inputs = RunInputs(teacher=str(teacher), train=data, eval=data, output=tmp_path / "out")
        run(RunRecipe(name="test", **sections), inputs)

    return run_it


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("distill", {"recipe": "kdd"}, "unknown recipe 'kdd'"),
        ("distill", {"recipe": "missing.yaml"}, "missing.yaml does not exist"),
        ("distill", {"student": "layer=1"}, "unknown student key 'layer'"),
        ("distill", {"epoch": 1}, "unknown key 'epoch', did you mean 'epochs'"),
        ("distill", {"unlabelled": "other.tsv"}, "no place for texts without labels"),
        ("distill", {"columns": {"text": "words"}}, "'columns' comes from the command line"),
        ("distill", {"train": "other"}, "'train' comes from the command line"),
        ("convert", {"source": "other"}, "'source' comes from .* the parts before: leave it out"),
        ("convert", {"precision": ["int9"]}, "int9"),
        ("convert", {"samples": "missing.tsv"}, "missing.tsv does not exist"),
        ("convert", {"samples": "other.tsv"}, "no column 'text"),
        ("convert", {"calibration": "missing.tsv"}, "missing.tsv does not exist"),
        ("convert", {"calibration": "other.tsv", "max_drop": 0.1}, "no column 'text"),
        ("benchmark", {"data": "missing.tsv"}, "missing.tsv does not exist"),
        ("benchmark", {"eval": "other.tsv"}, "no column 'text"),
        ("benchmark", {"baseline": "bert-bse"}, "did you mean 'bert-base'"),
        ("benchmark", {"device": "loca"}, "unknown device 'loca': did you mean 'local'"),
        ("benchmark", {"seq_length": 64}, "benchmark seq_length 64 is not among .* 16, 32"),
        ("benchmark", {"seq_length": 24}, "benchmark seq_length 24 is not among .* 16, 32"),
    ],
)
def test_a_mistake_is_told_before_work_starts(
    attempt: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: str,
    values: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        attempt(section, **values)
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_a_head_is_told_how_to_become_one(
    attempt: Callable[..., None], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    base = tiny_checkpoint(tmp_path / "base", task="fill-mask")
    with pytest.raises(CheckpointError, match=f"--recipe finetune --student {base} --train"):
        attempt("distill", teacher=base)
    assert not (tmp_path / "out").exists()
