"""Each output of a classifier has one name of its own, or the checkpoint is refused by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import Bundle
from edge.checkpoint import open_checkpoint
from edge.errors import BundleError, CheckpointError
from edge.models.labels import read_labels


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, ["a", "b"]),
        ({"id2label": {"1": "b", "0": "a"}, "label2id": None}, ["a", "b"]),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": "0", "b": "1"}}, ["a", "b"]),
        # Left over from before the classes had names.
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ["a", "b"]),
        ({"id2label": {"0": 0, "1": 1}}, ["0", "1"]),
        ({"label2id": {"b": 1, "a": 0}}, ["a", "b"]),
        ({"num_labels": 2}, None),
        # Names on one side only.
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"b": 1, "a": 0}}, ["a", "b"]),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"x": 0, "y": 1}}, ["a", "b"]),
    ],
)
def test_names_stand_in_the_order_of_the_outputs(
    values: dict[str, Any], names: list[str] | None
) -> None:
    labels = read_labels(values, where="config.json")
    assert names == (None if labels is None else [labels[i] for i in range(len(labels))])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "id2label numbers the outputs 1, 2: number them from"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label numbers the outputs 0, 2: number them from"),
        ({"id2label": {}}, "id2label numbers the outputs none"),
        ({"id2label": {"a": 0}}, "id2label must have numbers for keys, and has a"),
        ({"id2label": ["a", "b"]}, "id2label must be an object of numbers and names"),
        (
            {"id2label": {"0": "a", "1": "b", "2": "a"}},
            "gives outputs 0 and 2 the same name 'a': rename one",
        ),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "'a' is number 0 in id2label and number 1 in label2id",
        ),
        ({"id2label": {"0": None, "1": "b"}}, "gives output 0 'None' for a name"),
        ({"id2label": {"0": "a", "1": {"x": 1}}}, "gives output 1 .* for a name"),
        ({"id2label": {"0": "a", "1": " "}}, "the name ' ' of output 1 is empty"),
        ({"id2label": {"0": "a", "1": "x\ud800"}}, "of output 1 holds half a character"),
        ({"label2id": {"a": "first"}}, "label2id must have numbers for values"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id gives two names the same number"),
        ({"label2id": {"a": 1, "b": 2}}, "numbers the outputs 1, 2"),
        ({"id2label": {"0": "a"}, "num_labels": 3}, "num_labels = 3, and id2label has 1 names"),
    ],
)
def test_names_that_fit_no_output_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_labels(values, where="config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"1": "x", "2": "y", "3": "z"}}, "numbers the outputs 1, 2, 3"),
        ({"id2label": {"0": "x", "1": "x", "2": "z"}}, "the same name 'x'"),
        (
            {"architectures": ["BertForQuestionAnswering"]},
            "needs 2 outputs, start and end, and id2label has 3",
        ),
        ({"problem_type": "regression"}, "'regression' with 3 outputs is not supported"),
        ({"id2label": ["x", "y", "z"]}, "id2label must be an object of numbers and names"),
        ({"id2label": {"0.0": "x", "1.0": "y", "2.0": "z"}}, "numbers for keys, and has 0.0"),
        ({"problem_type": "ranking"}, "problem_type = .ranking. is not one of"),
    ],
)
def test_a_checkpoint_is_refused_when_it_is_opened(
    bert_checkpoint: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"label2id": None} | changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_lost_names_are_read_the_other_way_round(bert_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))
    values = json.loads((folder / "config.json").read_text())
    del values["id2label"]
    (folder / "config.json").write_text(json.dumps(values))
    assert open_checkpoint(folder).labels == ("negative", "neutral", "positive")


def test_a_bundle_with_two_classes_of_one_name_does_not_open(
    bert_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    values = json.loads((folder / "edge.json").read_text())
    values["labels"] = ["a", "b", "a"]
    (folder / "edge.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="two labels have the name 'a'"):
        Bundle.open(folder)
