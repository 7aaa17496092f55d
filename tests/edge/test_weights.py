"""Checkpoints with weights in several files: read whole, or refused by the name of a tensor."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge.checkpoint import load_model, open_checkpoint
from edge.errors import CheckpointError

_FIRST, _SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_INDEX = "model.safetensors.index.json"
Tensors = dict[str, np.ndarray[Any, Any]]
_BIAS = "classifier.bias"


@pytest.fixture
def sharded(bert_checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    shutil.copytree(bert_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {_FIRST: names[::2], _SECOND: names[1::2]}
    for file, held in shards.items():
        _save(folder / file, {name: weights[name] for name in held})
    places = {name: file for file, held in shards.items() for name in held}
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def _save(file: Path, tensors: Tensors) -> None:
    save_file(tensors, file, metadata={"format": "pt"})


def _place(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / _INDEX).read_text())["weight_map"][name]


def _other(folder: Path, name: str) -> Path:
    return folder / (_SECOND if _place(folder, name).name == _FIRST else _FIRST)


def test_shards_are_read_whole(sharded: Path, bert_checkpoint: Path) -> None:
    whole = load_model(open_checkpoint(bert_checkpoint)).state_dict()
    parts = load_model(open_checkpoint(sharded)).state_dict()
    assert all(bool((parts[name] == value).all()) for name, value in whole.items())


def _in_both(folder: Path) -> None:
    """With other values in the file that the index does not name: Transformers may take these."""
    file = _other(folder, _BIAS)
    value = load_file(_place(folder, _BIAS))[_BIAS]
    _save(file, {**load_file(file), _BIAS: value + 1})


def _beside_one_file(folder: Path) -> None:
    tensors = {**load_file(folder / _FIRST), **load_file(folder / _SECOND)}
    _save(folder / "model.safetensors", {name: value * 2 for name, value in tensors.items()})


def _whole_numbers(folder: Path) -> None:
    file = _place(folder, _BIAS)
    tensors = load_file(file)
    _save(file, {**tensors, _BIAS: (tensors[_BIAS] * 100).astype(np.int32)})


def _without_index(folder: Path) -> None:
    (folder / _INDEX).unlink()


def _cut(folder: Path) -> None:
    file = folder / _SECOND
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_in_both, f"holds '{_BIAS}', and so does model-0000.* save the checkpoint again"),
        (_beside_one_file, "holds both model.safetensors and .* two sets of weights: remove"),
        (_whole_numbers, f"'{_BIAS}' is stored as I32"),
        (_without_index, f"holds {re.escape(_FIRST)} and neither model.safetensors nor "),
        (_cut, f"{re.escape(_SECOND)} is corrupted"),
    ],
)
def test_shards_that_contradict_each_other_are_refused(
    sharded: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(sharded)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(sharded)
