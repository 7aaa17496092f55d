"""Data sets of the `datasets` library, and the class names it leaves in Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.data.files import READERS, Contents, read_file, suffix
from edge.errors import DataError
from edge.storage import sha256

# In a folder of more, `datasets` searches for minutes: it is the root of a disk or a project.
_MOST_FILES = 10_000
_SHOWN = 200


def is_local(source: str) -> bool:
    """Whether a source is a path by its looks, not the name of a data set."""
    known = suffix(Path(source)) in READERS
    return known or _folder(source).is_absolute() or source.startswith(".")


def check_source(source: str) -> None:
    """Raise DataError for a source that names nothing, no file, or no regular one."""
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
    """A source without the names of a configuration and a split."""
    return Path(source.partition(":")[0].partition("@")[0])


def open_dataset(source: str) -> Any:
    """The split of a `datasets` folder or name that `read_table` reads; raises DataError."""
    check_source(source)
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


def _files_of(source: str) -> tuple[list[Path], tuple[str, ...]] | None:
    """The files of a folder's split, as `datasets` chooses them, and the names of those unread.

    None where `datasets` has to read them. A file in a folder is read as it is alone: `datasets`
    gives TSV quotes, renames the second of two columns of one name, and takes all classes of a
    folder in the order of the first file.
    """
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    name, _, split = source.partition(":")
    folder = Path(name)
    if not folder.is_dir() or _is_described(folder):
        return None
    held = _held(folder)
    try:
        patterns = get_data_patterns(str(folder.resolve()))
        splits = DataFilesDict.from_patterns(patterns, base_path=str(folder.resolve()))
    except (EmptyDatasetError, FileNotFoundError):
        return None
    files = {str(key): [Path(str(file)) for file in found] for key, found in splits.items()}
    if any(_is_foreign(file) for found in files.values() for file in found):
        return None
    files = {key: [file for file in found if _is_data(file)] for key, found in files.items()}
    files = {key: found for key, found in files.items() if found}
    if not files:
        return None
    chosen = files[_split_of(name, split, files)]
    read = {file.resolve() for found in files.values() for file in found}
    unread = (file for file in held if _is_data(file) and file.resolve() not in read)
    return chosen, tuple(sorted(str(file.relative_to(folder)) for file in unread))


def _held(folder: Path) -> list[Path]:
    """All files of a folder but hidden ones; raises DataError where there are too many.

    Hidden ones count: `datasets` looks at each of them before it leaves it out.
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


def _is_foreign(file: Path) -> bool:
    """Whether `datasets` reads a file of a form that is not read here."""
    from datasets.packaged_modules import _EXTENSION_TO_MODULE

    return not _is_data(file) and file.suffix in _EXTENSION_TO_MODULE


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
    chosen = _files_of(source)
    if chosen is not None:
        files, unread = chosen
        return replace(_joined(files), unread=unread)
    import datasets

    loaded = open_dataset(source)
    # The classes of a label a row, or of one a word.
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
