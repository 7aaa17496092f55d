"""Texts without labels that a run brings, and the recipe that asks for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from distill import DistillResult, load_recipe
from distill.recipe.unlabelled import with_texts
from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny


def run(taught: Path, data: dict[str, Path], folder: Path, **changes: Any) -> DistillResult:
    own = {"student": "layers=1", "recipe": "xtreme", "augment_folder": folder / "texts"}
    own |= {"batch_size": 16, "epochs": 1}
    train = {"train": data["train"]}
    return distil_tiny(taught, train, folder / "out", **{**own, **changes})


def steps(folder: Path) -> dict[str, int]:
    """The last step of each stage."""
    with (folder / "out" / "training_log.csv").open() as file:
        return {row["stage"]: int(row["step"]) for row in csv.DictReader(file)}


def test_xtreme_with_texts_and_a_student_of_another_kind(
    taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"a film {'long ' * i}scene\n" for i in range(1, 49)))
    spec = "architecture=bilstm,hidden=8,embedding=6,max_position_embeddings=32"
    run(taught, data, tmp_path, student=spec, unlabelled=str(texts))
    assert open_checkpoint(str(tmp_path / "out")).config.model_type == "bilstm"
    assert open_checkpoint(str(tmp_path / "out")).config.embedding_size == 6
    assert steps(tmp_path) == {"imitate": 6, "answers": 6, "labels": 3}


def test_xtreme_without_texts_says_so(
    taught: Path, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(taught, data, tmp_path, max_steps=1)
    said = capsys.readouterr().err
    assert "without --unlabelled, imitate and answers see the labelled ones alone" in said
    assert set(steps(tmp_path)) == {"imitate", "answers", "labels"}


def test_texts_that_no_stage_has_a_place_for() -> None:
    with pytest.raises(ConfigError, match="'kd' has no place for texts without labels"):
        with_texts(load_recipe("kd"), "texts.txt")
