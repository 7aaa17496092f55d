"""Data sets of the `datasets` library, and the class names it leaves in Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.data.files import READERS, Contents, suffix
from edge.errors import DataError
from edge.storage import sha256


def is_local(source: str) -> bool:
    """Whether a source is a path by its looks, not the name of a data set."""
    known = suffix(Path(source)) in READERS
    return known or _folder(source).is_absolute() or source.startswith(".")


def _folder(source: str) -> Path:
    """A source without the names of a configuration and a split."""
    return Path(source.partition(":")[0].partition("@")[0])


def schema_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """The class names of columns, from a Parquet schema that `datasets` wrote."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in found.items() if names}


def _names(feature: Any) -> tuple[str, ...] | None:
    """The names of a class label, or of the class labels in a list."""
    if isinstance(feature, list):
        return _names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        return tuple(map(str, feature["names"]))
    return _names(feature["feature"]) if "feature" in feature else None


def open_dataset(source: str) -> Any:
    """The split of a `datasets` folder or name that `read_table` reads; raises DataError."""
    if is_local(source) and not _folder(source).is_dir():
        raise DataError(f"data file {source} does not exist: check the path")
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None, cache_dir=_cache_of(name))
    except Exception as error:  # network, missing name, broken files: many classes, one meaning
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"no data file or data set '{source}' ({reason})") from None
    if isinstance(loaded, dict):
        if not split and len(loaded) > 1:
            raise DataError(
                f"{name} has several splits: name one, e.g. {name}:{next(iter(loaded))}"
            )
        if split and split not in loaded:
            raise DataError(f"{name} has no split '{split}': choose from {', '.join(loaded)}")
        loaded = loaded[split or next(iter(loaded))]
    return loaded


def _cache_of(name: str) -> str | None:
    """Where `datasets` keeps what it reads of a folder, by its content; None for a hub's name.

    By itself it takes a file of the same path and time of change for the same file.
    """
    import datasets

    if not Path(name).is_dir():
        return None
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / sha256(Path(name)))


def from_datasets(source: str) -> Contents:
    """All columns of a data set by its folder or name, see `open_dataset`."""
    import datasets

    loaded = open_dataset(source)
    # The classes of a label a row, or of one a word.
    classes = {key: getattr(value, "feature", value) for key, value in loaded.features.items()}
    names = {
        key: tuple(feature.names)
        for key, feature in classes.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names
    }
    return Contents({key: list(loaded[key]) for key in loaded.column_names}, class_names=names)
