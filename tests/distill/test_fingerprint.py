"""What an interrupted run must have in common with the one that continues it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, check, load_recipe
from distill.training.resume import _differences
from edge.errors import CheckpointError, ConfigError, DataError, UserError
from tests.distill.conftest import write_rows, write_tsv


@pytest.fixture
def config(checkpoint: Path, tmp_path: Path) -> DistillConfig:
    """A run on copies that a test may edit."""
    shutil.copytree(checkpoint, tmp_path / "teacher")
    return DistillConfig(
        teacher=str(tmp_path / "teacher"),
        student="layers=1",
        train=str(write_rows(tmp_path / "train.tsv", 12, seed=1)),
        eval=str(write_rows(tmp_path / "eval.tsv", 12, seed=2)),
        recipe="kd",
        output=tmp_path / "student",
    )


def fingerprint(config: DistillConfig) -> dict[str, Any]:
    from distill.prepare import prepare

    found: dict[str, Any] = json.loads(
        json.dumps(prepare(config, load_recipe(config.recipe)).fingerprint)
    )
    return found


def _json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


EDITS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "teacher's shape": (lambda f: _json(f / "teacher/config.json", hidden_act="relu"), ["teacher"]),
    "teacher's tokenizer": (
        lambda f: _json(f / "teacher/tokenizer_config.json", model_max_length=31),
        ["teacher"],
    ),
    "train": (lambda f: write_rows(f / "train.tsv", 12, seed=3), ["train"]),
    "eval": (lambda f: write_rows(f / "eval.tsv", 12, seed=3), ["eval"]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_is_read_is_another_run(
    config: DistillConfig, tmp_path: Path, edit: str
) -> None:
    before = fingerprint(config)
    assert fingerprint(config) == before
    change, names = EDITS[edit]
    change(tmp_path)
    assert _differences(fingerprint(config), before) == names


def test_another_version_is_another_run(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(config)
    monkeypatch.setattr("edge.provenance.__version__", "99")
    assert _differences(fingerprint(config), before) == ["version of edge-encoders"]


def test_what_decides_nothing_may_differ(config: DistillConfig, tmp_path: Path) -> None:
    before = fingerprint(config)
    (tmp_path / "train.tsv").rename(tmp_path / "moved.tsv")
    free = {
        "train": str(tmp_path / "moved.tsv"),
        "output": tmp_path / "other",
        "save_seconds": 1.0,
        "threads": 1,
        "baselines": True,
        "tensorboard": tmp_path / "logs",
    }
    assert fingerprint(config.model_copy(update=free)) == before


@pytest.mark.parametrize("task", ["fill-mask", "feature-extraction"])
@pytest.mark.parametrize("data", ["labels", "tags"])
def test_an_encoder_without_a_head_is_told_how_to_become_a_teacher(
    make_checkpoint: Callable[..., Path], config: DistillConfig, task: str, data: str
) -> None:
    auto = {"fill-mask": "AutoModelForMaskedLM", "feature-extraction": "AutoModel"}[task]
    base, train = make_checkpoint(auto=auto), Path(config.train)
    flag = ""
    if data == "tags":
        train, flag = train.with_suffix(".conll"), " --task token-classification"
        train.write_text("fine O\nfilm B\n")
    config = config.model_copy(update={"teacher": str(base), "train": str(train), "eval": None})
    with pytest.raises(CheckpointError) as found:
        check(config)
    assert str(found.value) == (
        f"teacher {base} does {task} and has no head for the labels of {train}: make a teacher of "
        f"it first with edge distill --recipe finetune{flag} --student {base} --train {train} "
        "--output TEACHER"
    )


def test_the_command_that_is_named_works(
    make_checkpoint: Callable[..., Path], config: DistillConfig
) -> None:
    from distill import distill
    from edge.checkpoint import open_checkpoint

    base = make_checkpoint(auto="AutoModelForMaskedLM")
    named = {"teacher": None, "recipe": "finetune", "student": str(base), "max_steps": 1}
    distill(config.model_copy(update=named))
    assert open_checkpoint(config.output).task.name == "text-classification"


def test_an_encoder_may_teach_what_it_does(
    make_checkpoint: Callable[..., Path], config: DistillConfig, tmp_path: Path
) -> None:
    base = make_checkpoint(auto="AutoModelForMaskedLM")
    texts = tmp_path / "texts.txt"
    texts.write_text("fine film\nsad plot\n")
    # Asked for by name, or where there are no labels to learn.
    for changes in ({"task": "fill-mask"}, {"train": str(texts), "eval": str(texts)}):
        task = check(config.model_copy(update={"teacher": str(base), **changes}))
        assert task.name == "fill-mask"
    pairs = write_tsv(
        tmp_path / "pairs.tsv", "sentence1 sentence2 score", [("fine film", "sad plot", 0.5)] * 2
    )
    base = make_checkpoint(auto="AutoModel")
    changes = {"teacher": str(base), "train": str(pairs), "eval": str(pairs)}
    assert check(config.model_copy(update=changes)).name == "feature-extraction"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"recipe": "kdd"}, ConfigError, "unknown recipe 'kdd'"),
        ({"student": "layer=1"}, ConfigError, "unknown student key 'layer'"),
        ({"train": "missing.tsv"}, DataError, "missing.tsv does not exist"),
        ({"eval": "missing.tsv"}, DataError, "missing.tsv does not exist"),
        ({"unlabelled": "missing.txt"}, ConfigError, "no place for texts without labels"),
        (
            {"recipe": "xtreme", "unlabelled": "missing.txt"},
            DataError,
            "missing.txt does not exist",
        ),
    ],
)
def test_mistakes_are_told_without_a_model(
    config: DistillConfig, changes: dict[str, Any], error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check(config.model_copy(update=changes))
