"""Rows without labels: enough for recipes that follow a teacher, refused where labels teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distill.recipe.config import Stage, load_recipe, recipe_names
from edge.errors import DataError, UserError
from tests.distill.conftest import distil_tiny

WEIGHTS = "model.safetensors"


@pytest.fixture
def bare(data: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same texts without their labels."""
    lines = data["train"].read_text().splitlines()
    (tmp_path / "bare.tsv").write_text("".join(line.partition("\t")[0] + "\n" for line in lines))
    return {**data, "train": tmp_path / "bare.tsv"}


def recipe_of(folder: Path, terms: str, more: str = "") -> str:
    file = folder / "recipe.yaml"
    file.write_text(f"name: mine\nsummary: x\nstages: [{{terms: [{terms}], epochs: 1{more}}}]\n")
    return str(file)


@pytest.mark.parametrize("more", ["", ", augment: [{method: rules, copies: 1}]"])
def test_a_recipe_without_labels_learns_the_same_from_rows_without(
    taught: Path,
    data: dict[str, Path],
    bare: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: str,
) -> None:
    recipe = recipe_of(tmp_path, "{match: logits}, {match: hidden_states}", more)
    options = {"recipe": recipe, "augment_folder": tmp_path / "texts"}
    distil_tiny(taught, data, tmp_path / "labelled", **options)
    assert "have no label" not in capfd.readouterr().err
    distil_tiny(taught, bare, tmp_path / "bare", **options)
    said = "bare.tsv: 48 of 48 rows have no label, which recipe mine does not need"
    assert said in capfd.readouterr().err
    with_labels, without = (load_file(tmp_path / n / WEIGHTS) for n in ("labelled", "bare"))
    assert all(value.equal(without[name]) for name, value in with_labels.items())


@pytest.mark.parametrize(
    ("terms", "changes"),
    [
        ("{match: logits}, {match: labels}", {}),
        ("{match: logits}", {"baselines": True}),
        (
            "{match: logits, teacher: partner}, {match: logits}",
            {"more": ", companions: [{kind: partner}]"},
        ),
    ],
)
def test_labels_that_something_learns_from_are_asked_for(
    taught: Path, bare: dict[str, Path], tmp_path: Path, terms: str, changes: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, terms, changes.pop("more", ""))
    with pytest.raises(DataError, match="bare.tsv has no column 'label"):
        distil_tiny(taught, bare, tmp_path / "out", recipe=recipe, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["null", "-1"])
def test_rows_that_a_data_set_marks_as_unlabelled(
    taught: Path, data: dict[str, Path], tmp_path: Path, value: str
) -> None:
    """The last row of a `datasets` folder, which says so by -1, or by nothing at all."""
    datasets = pytest.importorskip("datasets")
    lines = [line.split("\t") for line in data["train"].read_text().splitlines()[1:]]
    labels: list[int | None] = [int(label) for _, label in lines[:-1]]
    labels.append(-1 if value == "-1" else None)
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["negative", "positive"])
    )
    rows = {"text": [text for text, _ in lines], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    files = {**data, "train": tmp_path / "set"}
    options: dict[str, Any] = {"max_steps": 1}
    recipe = recipe_of(tmp_path, "{match: logits}")
    distil_tiny(taught, files, tmp_path / "out", recipe=recipe, **options)
    recipe = recipe_of(tmp_path, "{match: logits}, {match: labels}")
    with pytest.raises(UserError, match="row 48"):
        distil_tiny(taught, files, tmp_path / "other", recipe=recipe, **options)


def test_which_recipes_read_labels() -> None:
    unlabelled = {name for name in recipe_names() if not load_recipe(name).reads_labels}
    assert {"tinybert", "kd-hidden"} & unlabelled == {"tinybert"}
    follow = {"match": "logits", "teacher": "who"}
    for companion, reads in (
        ({"kind": "ensemble", "name": "who", "of": "teachers", "weights": "labels"}, True),
        ({"kind": "ensemble", "name": "who", "of": "teachers", "mean": "min-logit"}, True),
        ({"kind": "ensemble", "name": "who", "of": "teachers", "weights": "entropy"}, False),
        ({"kind": "virtual", "name": "who"}, True),
        ({"kind": "peers", "name": "who"}, False),
    ):
        assert Stage.build({"terms": [follow], "companions": [companion]}).reads_labels == reads
    idle = [follow, {"match": "labels", "weight": 0}]
    peers = {"kind": "peers", "name": "who"}
    assert not Stage.build({"terms": idle, "companions": [peers]}).reads_labels


def test_a_row_that_its_data_set_leaves_unlabelled_is_refused_where_labels_teach(
    taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
        }
    )
    rows = {"text": ["fine film", "sad plot", "long"], "label": [1, 0, -1]}
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    recipe = recipe_of(tmp_path, "{match: logits}, {match: labels}")
    with pytest.raises(DataError, match=r"row 3 has no label \(1 of 3 rows\), which recipe mine"):
        distil_tiny(taught, {"train": file}, tmp_path / "out", recipe=recipe)
    recipe = recipe_of(tmp_path, "{match: logits}")
    distil_tiny(taught, {"train": file}, tmp_path / "out", recipe=recipe)
