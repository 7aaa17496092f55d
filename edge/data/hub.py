"""Data sets of the `datasets` library, and the class names in its Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.data.files import READERS, Contents, read_file, suffix
from edge.errors import DataError
from edge.storage import sha256

# `datasets` searches larger folders for minutes; such a folder is rarely a data set.
_MOST_FILES = 10_000
_SHOWN = 200


def is_local(source: str) -> bool:
    """Return True if a source looks like a path and not like the name of a data set."""
    data_file = suffix(Path(source)) in READERS
    return data_file or _folder(source).is_absolute() or source.startswith(".")


def check_source(source: str) -> None:
    """Raise DataError for an empty source, a missing file, or a file that is not regular."""
    path = Path(source)
    if path.is_file():
        return
    if not source.partition(":")[0].partition("@")[0].strip():
        raise DataError(f"{source!r} names no data: give a file, a folder or a datasets name")
    if path.exists() and not path.is_dir():
        raise DataError(
            f"{source} is a pipe or device, and data is read more than once, by the ending of its "
            "name: write it to a file first"
        )
    if is_local(source) and not _folder(source).is_dir():
        raise DataError(f"data file {source} does not exist: check the path")


def _folder(source: str) -> Path:
    """Return a source without the names of configuration and split."""
    return Path(source.partition(":")[0].partition("@")[0])


def open_dataset(source: str) -> Any:
    """Open the split of a `datasets` folder or name that `read_table` reads; raises DataError."""
    check_source(source)
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None, cache_dir=_cache_folder(name))
    except Exception as error:  # network, missing name, broken files: many classes, one meaning
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"no data file or data set '{source}' ({reason})") from None
    return loaded[_choose_split(name, split, loaded)] if isinstance(loaded, dict) else loaded


def _choose_split(name: str, split: str, splits: Iterable[str]) -> str:
    """Return the split to read; raises DataError if it is missing or ambiguous."""
    names = [str(name) for name in splits]
    if not split and len(names) > 1:
        raise DataError(f"{name} has several splits: name one, e.g. {name}:{names[0]}")
    if split and split not in names:
        raise DataError(f"{name} has no split '{split}': choose from {', '.join(names)}")
    return split or names[0]


def _cache_folder(name: str) -> str | None:
    """Return the cache folder of `datasets` for a folder's content; None for a hub name.

    The default cache of `datasets` identifies a file by path and modification time only.
    """
    import datasets

    if not Path(name).is_dir():
        return None
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / sha256(Path(name)))


def _split_files(source: str) -> tuple[list[Path], tuple[str, ...]] | None:
    """Return the files of a folder's split, as `datasets` selects them, and the unread files.

    None if `datasets` must read them. Files are otherwise read by `read_file`, like single files:
    `datasets` applies quoting to TSV, renames the second of two columns with the same name, and
    orders all classes of a folder as in the first file.
    """
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    name, _, split = source.partition(":")
    folder = Path(name)
    if not folder.is_dir() or _describes_files(folder):
        return None
    all_files = _visible_files(folder)
    try:
        patterns = get_data_patterns(str(folder.resolve()))
        splits = DataFilesDict.from_patterns(patterns, base_path=str(folder.resolve()))
    except (EmptyDatasetError, FileNotFoundError):
        return None
    files = {str(key): [Path(str(file)) for file in paths] for key, paths in splits.items()}
    if any(_needs_datasets(file) for paths in files.values() for file in paths):
        return None
    files = {key: [file for file in paths if _is_data(file)] for key, paths in files.items()}
    files = {key: paths for key, paths in files.items() if paths}
    if not files:
        return None
    chosen = files[_choose_split(name, split, files)]
    read = {file.resolve() for paths in files.values() for file in paths}
    unread = (file for file in all_files if _is_data(file) and file.resolve() not in read)
    return chosen, tuple(sorted(str(file.relative_to(folder)) for file in unread))


def _visible_files(folder: Path) -> list[Path]:
    """Return all files of a folder except hidden ones; raises DataError if there are too many.

    Hidden files count towards the limit, because `datasets` examines them too.
    """
    files: list[Path] = []
    for place, _, names in os.walk(folder):
        files += [Path(place, name) for name in names]
        if len(files) > _MOST_FILES:
            raise DataError(
                f"{folder} is a folder of more than {_MOST_FILES:,} files: name the data file, or "
                "a folder that holds the data alone"
            )
    return [file for file in files if not _is_hidden(file.relative_to(folder))]


def _is_hidden(file: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.parts)


def _is_data(file: Path) -> bool:
    return suffix(file) in READERS


def _needs_datasets(file: Path) -> bool:
    """Return True if only `datasets` can read the format of a file."""
    from datasets.packaged_modules import _EXTENSION_TO_MODULE

    return not _is_data(file) and file.suffix in _EXTENSION_TO_MODULE


def _describes_files(folder: Path) -> bool:
    """Return True if a folder describes its files: a saved data set, or a card with `configs`."""
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return True
    card = folder / "README.md"
    return card.is_file() and b"configs:" in card.read_bytes()


def _concatenated(files: Sequence[Path]) -> Contents:
    """Concatenate the rows of files; raises DataError if their columns or classes differ."""
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
    """Read all columns of a data set by its folder or name, see `open_dataset`."""
    chosen = _split_files(source)
    if chosen is not None:
        files, unread = chosen
        return replace(_concatenated(files), unread=unread)
    import datasets

    loaded = open_dataset(source)
    # The feature of one label per row, or of one label per word.
    classes = {key: getattr(value, "feature", value) for key, value in loaded.features.items()}
    names = {
        key: tuple(feature.names)
        for key, feature in classes.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names
    }
    try:
        rows = {key: list(loaded[key]) for key in loaded.column_names}
    except Exception as error:  # cells of damaged files, of every library that decodes one
        raise DataError(
            f"data set '{source}' holds a value that cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:_SHOWN]})"
        ) from None
    return Contents(rows, class_names=names)
