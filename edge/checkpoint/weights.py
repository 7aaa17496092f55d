"""The weight files of a checkpoint folder, checked before a model is made of them."""

from __future__ import annotations

import json
from pathlib import Path

from edge.errors import CheckpointError
from edge.settings import inside, read_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER = "adapter_config.json"
# The types a tensor may be stored in; integers are tables of positions and the like, no weights.
_FLOATS = {"F64", "F32", "F16", "BF16"}
_TABLES = {"I64", "I32", "I16", "BOOL"}
_LEARNT = (".weight", ".bias", ".gamma", ".beta")


def check_weights(path: Path, *, allow_pickle: bool) -> None:
    """Raise CheckpointError unless a folder has whole weights in a form that can be read."""
    if (path / _ADAPTER).is_file():
        raise CheckpointError(
            f"{path} holds an adapter ({_ADAPTER}): merge it into its model with "
            "merge_and_unload() and save that"
        )
    if (path / WEIGHTS).is_file() or (path / INDEX).is_file():
        if (path / INDEX).is_file():
            _check_index(path)
        for file in sorted(path.glob("*.safetensors")):
            _check_tensors(file)
        return
    shards = sorted(path.glob("*.safetensors"))
    if shards:
        raise CheckpointError(
            f"{path} holds {shards[0].name} and neither {WEIGHTS} nor {INDEX}: download it again"
        )
    if not any((path / name).is_file() for name in _PICKLES):
        raise CheckpointError(f"{path} has no weights ({WEIGHTS})")
    if not allow_pickle:
        raise CheckpointError(
            f"{path} has pickled weights only, which can run code when loaded: convert them "
            "to safetensors, or pass --allow-pickle if you trust their source"
        )


def _check_index(path: Path) -> None:
    """An index names the file of each tensor, all of them in its own folder, and no other does."""
    file = path / INDEX
    if (path / WEIGHTS).is_file():
        raise CheckpointError(
            f"{path} holds both {WEIGHTS} and {INDEX}, two sets of weights: remove the one that is "
            "not meant"
        )
    names = read_object(file).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{file} has no weight_map of tensors and files")
    for name in dict.fromkeys(map(_text, names.values())):
        shard = inside(file, path, name)
        if not shard.is_file():
            raise CheckpointError(f"{file} names {name}, which is not there: download it again")
        held = _check_tensors(shard)
        lost = [tensor for tensor, own in names.items() if own == name and tensor not in held]
        if lost:
            raise CheckpointError(f"{shard} has no '{lost[0]}', which {INDEX} says it holds")
        twice = sorted(tensor for tensor in held if names.get(tensor, name) != name)
        if twice:
            raise CheckpointError(
                f"{shard} holds '{twice[0]}', and so does {names[twice[0]]} by {INDEX}: save the "
                "checkpoint again with save_pretrained()"
            )


def _check_tensors(file: Path) -> set[str]:
    """The names of a file's tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            names = list(tensors.keys())
            types = {name: tensors.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is corrupted ({error}): download or save it again") from None
    odd = [
        name
        for name, kind in types.items()
        if str(kind) not in (_FLOATS if name.endswith(_LEARNT) else _FLOATS | _TABLES)
    ]
    if odd:
        raise CheckpointError(
            f"{file}: '{odd[0]}' is stored as {types[odd[0]]}: save the checkpoint with its "
            "weights in floating point of 16 bits or more"
        )
    return set(names)


def _text(name: object) -> str:
    return name if isinstance(name, str) else json.dumps(name)
