"""Checkpoints that cannot be used are refused before any work, in one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint import load_model, load_tokenizer, max_length, open_checkpoint
from edge.errors import CheckpointError, ConfigError


@pytest.fixture
def copy(bert_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_checkpoint_knows_its_task_labels_and_length(bert_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(bert_checkpoint)
    assert checkpoint.task.name == "text-classification"
    assert checkpoint.labels == ("negative", "neutral", "positive")
    assert max_length(checkpoint, load_tokenizer(checkpoint)) == 64
    model = load_model(checkpoint)
    assert not model.training
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def pickle_only(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_tokenizer, "has no tokenizer: save one beside the weights"),
        (pickle_only, "has pickled weights only, .* pass --allow-pickle if you trust"),
        (truncated, r"model\.safetensors is corrupted .*: download or save it again"),
        (no_weights, r"has no weights \(model\.safetensors\)"),
        (no_config, r"has no config\.json: it is not a Transformers checkpoint"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
        (lambda f: edit_config(f, model_type="brt"), "unknown architecture 'brt', did you mean"),
        (lambda f: edit_config(f, is_decoder=True), "has a decoder; only encoders"),
        (lambda f: edit_config(f, architectures=[]), "does not say what it was trained for"),
    ],
)
def test_unusable_checkpoints_are_refused(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(copy)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_pickled_weights_load_when_allowed(copy: Path, bert_checkpoint: Path) -> None:
    import torch

    pickle_only(copy)
    ours = load_model(open_checkpoint(copy, allow_pickle=True))
    theirs = load_model(open_checkpoint(bert_checkpoint))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_task_without_weights_is_refused(bert_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(bert_checkpoint, task="question-answering")
    with pytest.raises(CheckpointError, match="has no weights for 'qa_outputs.bias' and so cannot"):
        load_model(checkpoint)


def test_weights_of_another_shape_are_named(copy: Path) -> None:
    values = json.loads((copy / "config.json").read_text())
    values |= {"id2label": {str(i): f"class {i}" for i in range(5)}, "label2id": None}
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"shape of 'classifier.*\(3.*stored, \(5"):
        load_model(open_checkpoint(copy))


def test_weights_that_are_not_finite_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weight 'classifier.bias' holds values that are not"):
        load_model(open_checkpoint(copy))


def test_unknown_tasks_suggest_the_nearest(bert_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'text-classification'?"):
        open_checkpoint(bert_checkpoint, task="text-clasification")


def test_sources_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist: check the path"):
        open_checkpoint(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file: a checkpoint is a folder or a hub id"):
        open_checkpoint(tmp_path / "file")
    with pytest.raises(CheckpointError, match="no folder and no reachable hub checkpoint 'nobody/"):
        open_checkpoint("nobody/nothing")
