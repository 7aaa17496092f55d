"""Data sets of the `datasets` library, and the class names it leaves in Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge.data.files import READERS, Contents, read_file, suffix
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
    return loaded[_split_of(name, split, loaded)] if isinstance(loaded, dict) else loaded


def _split_of(name: str, split: str, splits: Iterable[str]) -> str:
    """The split to read; raises DataError where it is not there, or is not plain."""
    names = [str(name) for name in splits]
    if not split and len(names) > 1:
        raise DataError(f"{name} has several splits: name one, e.g. {name}:{names[0]}")
    if split and split not in names:
        raise DataError(f"{name} has no split '{split}': choose from {', '.join(names)}")
    return split or names[0]


def _cache_of(name: str) -> str | None:
    """Where `datasets` keeps what it reads of a folder, by its content; None for a hub's name.

    By itself it takes a file of the same path and time of change for the same file.
    """
    import datasets

    if not Path(name).is_dir():
        return None
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / sha256(Path(name)))


def _files_of(source: str) -> list[Path] | None:
    """The files of a folder's split, as `datasets` chooses them; None where it has to read them.

    A file in a folder is read as it is alone: `datasets` gives TSV quotes, renames the second of
    two columns of one name, and takes all classes of a folder in the order of the first file.
    """
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    name, _, split = source.partition(":")
    folder = Path(name)
    if not folder.is_dir() or _is_described(folder):
        return None
    try:
        patterns = get_data_patterns(str(folder.resolve()))
        splits = DataFilesDict.from_patterns(patterns, base_path=str(folder.resolve()))
    except (EmptyDatasetError, FileNotFoundError):
        return None
    files = {str(key): [Path(str(file)) for file in found] for key, found in splits.items()}
    if any(suffix(file) not in READERS for found in files.values() for file in found):
        return None
    return files[_split_of(name, split, files)]


def _is_described(folder: Path) -> bool:
    """Whether a folder says what its files are: a saved data set, or a card with `configs`."""
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return True
    card = folder / "README.md"
    return card.is_file() and b"configs:" in card.read_bytes()


def _joined(files: Sequence[Path]) -> Contents:
    """The rows of files one after the other; raises DataError where they do not have the same."""
    parts = [read_file(file) for file in files]
    first, *others = parts
    if not others:
        return first
    for file, part in zip(files[1:], others, strict=True):
        if set(part.rows) != set(first.rows):
            raise DataError(
                f"{file} has the columns {', '.join(part.rows)} where {files[0].name} has "
                f"{', '.join(first.rows)}: give all files of a folder the same"
            )
        if part.class_names != first.class_names:
            raise DataError(
                f"{file} names other classes, or in another order, than {files[0].name}: give all "
                "files of a folder the same"
            )
    rows = {name: [row for part in parts for row in part.rows[name]] for name in first.rows}
    return Contents(rows, class_names=first.class_names)


def from_datasets(source: str) -> Contents:
    """All columns of a data set by its folder or name, see `open_dataset`."""
    files = _files_of(source)
    if files is not None:
        return _joined(files)
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
