"""Assistants between teacher and student: who teaches whom, what is kept, what goes on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distill import load_recipe
from distill.training.trainer import DistillTrainer
from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny, watch_links

run = partial(
    distil_tiny,
    student="layers=1",
    recipe="assistant",
    assistants=("layers=3", "layers=2"),
    batch_size=16,
    max_steps=2,
)


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return all(bool((first[name] == second[name]).all()) for name in first)


def links_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The sources of the teachers of every model that is trained, as the runs are made."""

    def note(link: Any, spec: str) -> tuple[str, ...]:
        layers = [t.model.config.num_hidden_layers for t in link.inputs.teachers]
        return (spec, *map(str, layers))

    return watch_links(monkeypatch, note)


def test_each_is_taught_by_the_one_before_it(
    taught: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = links_of(monkeypatch)
    result = run(taught, data, tmp_path / "out")
    assert seen == [("layers=3", "4"), ("layers=2", "3"), ("layers=1", "2")]
    assert open_checkpoint(str(tmp_path / "out")).config.num_hidden_layers == 1
    assert [one["student"] for one in result.assistants or []] == ["layers=3", "layers=2"]
    assert all(0 <= one["value"] <= 1 for one in result.assistants or [])
    sizes = [one["parameters"] for one in result.assistants or []]
    assert (result.teacher_parameters or 0) > sizes[0] > sizes[1] > result.parameters
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # The same as doing it by hand, one run after the other.
    teacher = taught
    for number, spec in enumerate(("layers=3", "layers=2", "layers=1")):
        run(teacher, data, tmp_path / f"{number}", student=spec, assistants=())
        teacher = tmp_path / f"{number}"
    assert same(tmp_path / "out", tmp_path / "2")


def test_all_guide_and_the_nearest_comes_first(
    taught: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = links_of(monkeypatch)
    recipe = tmp_path / "dense.yaml"
    text = (Path(__file__).parents[2] / "distill" / "recipes" / "assistant.yaml").read_text()
    recipe.write_text(text.replace("guides: last", "guides: all"))
    run(taught, data, tmp_path / "out", recipe=str(recipe), teacher_cache=tmp_path / "cache")
    assert seen == [("layers=3", "4"), ("layers=2", "3", "4"), ("layers=1", "2", "3", "4")]


def test_what_was_interrupted_goes_on(
    taught: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(taught, data, tmp_path / "through")
    trained = 0
    original = DistillTrainer.train

    def second_is_stopped(self: DistillTrainer, *args: Any, **options: Any) -> Any:
        nonlocal trained
        trained += 1
        if trained == 2:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(DistillTrainer, "train", second_is_stopped)
    with pytest.raises(KeyboardInterrupt):
        run(taught, data, tmp_path / "out")
    kept = tmp_path / "out.training"
    assert json.loads((kept / "assistant-1" / "distillation.json").read_text())["value"] is not None
    assert not (tmp_path / "out").exists()
    run(taught, data, tmp_path / "out")
    # The first assistant was there already: the second and the student are two more.
    assert trained == 4
    assert "is kept: the same command continues from there" in capsys.readouterr().err
    assert same(tmp_path / "out", tmp_path / "through")
    assert not kept.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assistants": ("layers=2", "layers=3")}, "layers=3: the teacher has 2 layers"),
        ({"assistants": ("layer=2",)}, "unknown student key 'layer': did you mean 'layers'"),
        ({"recipe": "finetune"}, "recipe 'finetune' asks no teacher.*leave out --assistants"),
    ],
)
def test_chains_that_cannot_be(
    changes: dict[str, Any], message: str, taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(taught, data, tmp_path / "out", **changes)
    assert not (tmp_path / "out.training").exists()


def test_the_recipe_has_an_assistant() -> None:
    recipe = load_recipe("assistant")
    assert [one.student for one in recipe.assistants] == ["layers=2/3"]
    assert recipe.guides == "last"
