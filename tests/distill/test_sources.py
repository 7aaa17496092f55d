"""Where a run's texts and its teacher's signals come from besides the data and a live model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distill import DistillResult
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny

RUN = Callable[..., DistillResult]


@pytest.fixture
def run(checkpoint: Path, data: dict[str, Path], tmp_path: Path) -> RUN:
    """Distill at tiny size; keywords replace settings."""
    own = {"student": "layers=2,hidden=8", "augment_folder": tmp_path / "texts", "epochs": 1}
    return partial(distil_tiny, checkpoint, data, tmp_path / "student", **own)


def recipe(folder: Path, *stages: str) -> str:
    path = folder / "mine.yaml"
    path.write_text("name: mine\nsummary: s\nstages:\n" + "".join(f"- {{{s}}}\n" for s in stages))
    return str(path)


def steps(folder: Path, stage: str) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == stage and row["loss"]]


def made_from(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "distillation.json").read_text())
    found: dict[str, Any] = record["made_from"]
    return found


def weights(folder: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def plain(data: dict[str, Path], tmp_path: Path) -> Path:
    """16 texts of its own, and all of the rows that students are evaluated on."""
    words = ["film", "plot", "actor", "scene", "music", "long", "great", "sad"]
    own = [f"{first} {second} film" for first in words[:4] for second in words[4:]]
    held_out = [line.split("\t")[0] for line in data["eval"].read_text().splitlines()[1:]]
    path = tmp_path / "plain.txt"
    path.write_text("\n".join([*own, *held_out]) + "\n")
    return path


AUGMENT = "augment: [{method: unlabelled, source: SOURCE}]"


def test_a_stage_learns_from_texts_without_labels(run: RUN, plain: Path, tmp_path: Path) -> None:
    """Both kinds of rows train together, and no evaluated row is among them."""
    augment = AUGMENT.replace("SOURCE", str(plain))
    mine = recipe(
        tmp_path,
        f"name: both, {augment}, terms: [{{match: logits}}, {{match: labels}}]",
        "name: own, terms: [{match: logits}]",
    )
    result = run(recipe=mine)
    assert (result.train_samples, result.eval_samples) == (48, 24)
    folder = tmp_path / "student"
    assert len(steps(folder, "both")) == (48 + 16) / 8
    assert len(steps(folder, "own")) == 48 / 8
    assert all(0 < float(row["labels"]) < 5 for row in steps(folder, "both"))
    assert set(made_from(folder)["augmented"]) == {"both"}
    (kept,) = (tmp_path / "texts").iterdir()
    assert len(kept.read_text().splitlines()) == 16


def test_without_an_evaluation_nothing_is_left_out(run: RUN, plain: Path, tmp_path: Path) -> None:
    mine = recipe(tmp_path, f"{AUGMENT.replace('SOURCE', str(plain))}, terms: [{{match: logits}}]")
    run(recipe=mine, eval=None)
    (kept,) = (tmp_path / "texts").iterdir()
    assert len(kept.read_text().splitlines()) == 16 + 24


def test_the_record_tells_other_texts_apart(run: RUN, plain: Path, tmp_path: Path) -> None:
    mine = recipe(tmp_path, f"{AUGMENT.replace('SOURCE', str(plain))}, terms: [{{match: logits}}]")
    found = []
    for _ in range(2):
        run(recipe=mine, max_steps=1)
        found.append(made_from(tmp_path / "student"))
        plain.write_text(plain.read_text() + "one more lovely scene\n")
    assert found[0]["augmented"] != found[1]["augmented"]
    assert found[0]["train"] == found[1]["train"]


def test_scores_and_texts_without_one(
    run: RUN, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = make_checkpoint(labels=("score",), problem_type="regression")
    path = tmp_path / "scores.csv"
    path.write_text(
        "text,score\n" + "".join(f"fine film {w},{i}\n" for i, w in enumerate("abcdefgh"))
    )
    mine = recipe(
        tmp_path,
        "augment: [{method: rules, copies: 2, mask: 0.5}], "
        "terms: [{match: logits}, {match: labels}]",
    )
    run(teacher=str(teacher), train=str(path), eval=None, recipe=mine)
    rows = steps(tmp_path / "student", "train")
    assert len(rows) > 1
    assert all(float(row["labels"]) >= 0 for row in rows)


def test_a_run_with_new_texts_continues(
    run: RUN, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.training.trainer import DistillTrainer

    mine = recipe(tmp_path, f"{AUGMENT.replace('SOURCE', str(plain))}, terms: [{{match: logits}}]")
    run(recipe=mine, save_seconds=0)
    whole = (tmp_path / "student" / "model.safetensors").read_bytes()
    step, count = DistillTrainer.training_step, 0

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(DistillTrainer, "training_step", interrupt)
    again = {"recipe": mine, "save_seconds": 0, "output": tmp_path / "again"}
    with pytest.raises(KeyboardInterrupt):
        run(**again)
    # The texts are found wherever they are kept now.
    run(**again, augment_folder=tmp_path / "elsewhere")
    assert count == 5 + 4
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == whole


def test_a_cached_teacher_says_what_a_live_one_does(
    run: RUN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every term of two stages, from one folder; the second run asks nobody."""
    import torch

    from distill.signals.capture import LiveTeacher

    mine = recipe(
        tmp_path,
        "name: inside, terms: [{match: hidden_states}]",
        "name: answers, terms: [{match: logits}, {match: labels}, {match: embeddings}]",
    )
    run(recipe=mine, output=tmp_path / "live")
    cache = tmp_path / "cache"
    run(recipe=mine, output=tmp_path / "first", teacher_cache=cache)
    assert len(list(cache.iterdir())) == 1

    def refuse(self: Any, inputs: Any) -> Any:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr(LiveTeacher, "__call__", refuse)
    run(recipe=mine, output=tmp_path / "second", teacher_cache=cache)
    live, first, second = (weights(tmp_path / name) for name in ("live", "first", "second"))
    for name, value in first.items():
        assert torch.equal(second[name], value), name
        # Hidden states are kept in half the bytes; Adam's first steps follow a gradient's sign.
        torch.testing.assert_close(value, live[name], rtol=0, atol=2e-3)
    assert any(not torch.equal(value, live[name]) for name, value in first.items())


def test_stages_with_other_texts_have_folders_of_their_own(
    run: RUN, plain: Path, tmp_path: Path
) -> None:
    mine = recipe(
        tmp_path,
        f"name: both, {AUGMENT.replace('SOURCE', str(plain))}, terms: [{{match: logits}}]",
        "name: own, terms: [{match: logits}]",
    )
    run(recipe=mine, teacher_cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert len(steps(tmp_path / "student", "both")) == (48 + 16) / 8


def test_a_cache_of_another_teacher_is_refused(
    run: RUN, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    run(recipe="kd", teacher_cache=tmp_path / "cache", max_steps=1)
    with pytest.raises(ConfigError, match="was made with another teacher: name another folder"):
        run(
            recipe="kd",
            teacher=str(make_checkpoint(seed=7)),
            teacher_cache=tmp_path / "cache",
            output=tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()


def test_recipes_that_need_different_things_share_a_cache(run: RUN, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"teacher_cache": tmp_path / "cache", "max_steps": 2}
    run(recipe="kd", **settings)
    cached = run(recipe="kd-hidden", **settings, output=tmp_path / "both")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    settings["teacher_cache"] = tmp_path / "fresh"
    alone = run(recipe="kd-hidden", **settings, output=tmp_path / "alone")
    assert cached.value == alone.value
    students = [weights(tmp_path / name) for name in ("both", "alone")]
    assert all((students[0][name] == value).all() for name, value in students[1].items())


def test_a_cache_without_a_teacher(run: RUN, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'finetune' asks no teacher anything: leave out --teach"):
        run(recipe="finetune", teacher_cache=tmp_path / "cache")


def test_every_stage_is_checked_before_the_first_trains(run: RUN, tmp_path: Path) -> None:
    mine = recipe(
        tmp_path,
        "name: first, terms: [{match: logits}]",
        "name: second, terms: [{match: hidden_states, layers: [[3, 4]]}]",
    )
    with pytest.raises(ConfigError, match="layer 3 does not exist: the student has layers 1 to 2"):
        run(recipe=mine)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
