"""Data files: TSV, CSV, JSON lines, Parquet, a `datasets` folder, or a `datasets` name.

Text columns are `text`, or `sentence1` and `sentence2`; the target is `label` or `score`.
TSV has no quoting: a quote is a character like any other.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.config import Config
from edge.errors import DataError, nearest

Rows = dict[str, list[Any]]
_TEXT = ("text", "sentence1", "sentence")
_PAIR = ("text_pair", "sentence2")
_TARGET = ("label", "score", "labels")


class Columns(Config):
    """Which columns to read, where their names are not the usual ones."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a data file: texts, second texts where there are any, and targets likewise."""

    source: str
    texts: list[str]
    pairs: list[str] | None
    targets: list[Any] | None
    target_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int | None) -> Table:
        """The first `count` rows; all when None."""
        return self.take(range(min(count, len(self)))) if count is not None else self

    def take(self, rows: Sequence[int]) -> Table:
        """The rows with these indices."""

        def pick(column: list[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in rows]

        texts = [self.texts[i] for i in rows]
        return Table(self.source, texts, pick(self.pairs), pick(self.targets), self.target_names)


def read_table(
    source: str | Path, *, columns: Columns | None = None, targets: bool = True
) -> Table:
    """Read a data file or a `datasets` name ("NAME", "NAME@CONFIG", either with ":SPLIT").

    With `targets`, a label column must exist. Raises DataError when the source is missing or
    empty, when a column is not there, or when a text is not text.
    """
    columns = columns or Columns()
    rows, names = _rows(str(source))
    if not rows or not next(iter(rows.values())):
        raise DataError(f"{source} is empty: it has no rows")
    text = _column(rows, columns.text, _TEXT, source=source, flag="--text-column")
    assert text is not None
    pair = _column(
        rows, columns.text_pair, _PAIR, source=source, flag="--pair-column", optional=True
    )
    label = _column(
        rows, columns.label, _TARGET, source=source, flag="--label-column", optional=not targets
    )
    return Table(
        source=str(source),
        texts=_texts(rows[text], text, source),
        pairs=None if pair is None else _texts(rows[pair], pair, source),
        targets=None if label is None else rows[label],
        target_names=names.get(label) if label else None,
    )


def _rows(source: str) -> tuple[Rows, dict[str, tuple[str, ...]]]:
    """All columns of a source, and the class names of those that have them."""
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if path.is_file():
        if reader is None:
            raise DataError(
                f"{source}: unknown kind of data file '{path.suffix}': "
                f"use {', '.join(sorted(_READERS))}"
            )
        return reader(path), {}
    folder = Path(source.partition(":")[0].partition("@")[0])
    looks_local = reader is not None or folder.is_absolute() or source.startswith(".")
    if looks_local and not folder.is_dir():
        raise DataError(f"data file {source} does not exist: check the path")
    return _from_datasets(source)


def _read_separated(path: Path, **dialect: Any) -> Rows:
    # A field may hold a whole document; the csv module's own limit is 128 KiB.
    csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, **dialect))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from None
    if not lines:
        raise DataError(f"{path} is empty: it has no header row")
    header = lines[0]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"{path} line {number}: {len(line)} fields where the header has {len(header)}"
            )
    return {name: [line[i] for line in lines[1:]] for i, name in enumerate(header)}


def _read_tsv(path: Path) -> Rows:
    return _read_separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_json_lines(path: Path) -> Rows:
    rows: Rows = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number} is not valid JSON ({error})") from None
            if not isinstance(record, dict) or (rows and set(record) != set(rows)):
                raise DataError(f"{path} line {number}: every line must have the same keys")
            for name, value in record.items():
                rows.setdefault(name, []).append(value)
    return rows


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: Rows = pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file ({error})") from None
    return rows


_READERS = {
    ".tsv": _read_tsv,
    ".csv": _read_separated,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}


def _from_datasets(source: str) -> tuple[Rows, dict[str, tuple[str, ...]]]:
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None)
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
    names = {
        key: tuple(feature.names)
        for key, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return {key: list(loaded[key]) for key in loaded.column_names}, names


def _column(
    rows: Rows,
    wanted: str | None,
    usual: Sequence[str],
    *,
    source: str | Path,
    flag: str,
    optional: bool = False,
) -> str | None:
    """The column to read: the one asked for, else the first usual name that exists."""
    if wanted is not None and wanted in rows:
        return wanted
    found = next((name for name in usual if name in rows), None)
    if wanted is None and (found or optional):
        return found
    missing = wanted or " or ".join(usual[:2])
    guess = nearest(missing, rows) if wanted else None
    hint = f"did you mean '{guess}'? " if guess else f"name it with {flag}; "
    raise DataError(f"{source} has no column '{missing}': {hint}it has {', '.join(rows)}")


def _texts(values: Iterable[Any], column: str, source: str | Path) -> list[str]:
    texts = []
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise DataError(
                f"{source}: column '{column}' must hold text, row {number} has {value!r}"
            )
        texts.append(value)
    return texts
