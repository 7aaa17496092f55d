"""Reading of a data source into a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.data.columns import choose_columns
from edge.data.files import Contents, read_file
from edge.data.hub import check_source, from_datasets
from edge.data.table import SCORE, TEXTS, Columns, Layout, Table
from edge.data.values import is_missing, is_text
from edge.errors import DataError

# The class that `datasets` gives to rows without a label, such as hidden test sets.
_UNLABELED = -1


def read_table(
    source: str | Path,
    *,
    columns: Columns | None = None,
    targets: bool = True,
    layout: Layout = TEXTS,
    pairs: bool | None = None,
) -> Table:
    """Read a data file or a `datasets` name ("NAME", "NAME@CONFIG", either with ":SPLIT").

    layout: the columns to look for; `Task.read` passes its task's. Without `targets`, any file with
    texts is accepted. pairs: True if a row must have two texts, False if one; None allows both.
    Raises DataError when the source is missing or empty, when a column is missing or ambiguous, or
    when a text is not a string.
    """
    name = str(source)
    contents = _contents(name)
    rows = contents.rows
    if not rows or not next(iter(rows.values())):
        raise DataError(f"{source} is empty: it has no rows")
    chosen = choose_columns(name, rows, columns or Columns(), layout, targets=targets, pairs=pairs)
    in_words = layout.words and (targets or chosen.text in layout.text)
    words = _words(rows[chosen.text], chosen.text, contents, name) if in_words else None
    texts = (
        _texts(rows[chosen.text], chosen.text, contents, name)
        if words is None
        else [" ".join(part) for part in words]
    )
    if not any(map(str.strip, texts)):
        raise DataError(f"{source}: column '{chosen.text}' is empty in every row")
    label = chosen.label
    names = contents.class_names.get(label) if label else None
    return Table(
        source=name,
        texts=texts,
        pairs=None
        if chosen.pair is None
        else _texts(rows[chosen.pair], chosen.pair, contents, name),
        targets=None if label is None else _targets(rows[label], names, layout, needed=targets),
        target_names=names,
        words=words,
        scored=label == SCORE,
        lines=contents.lines,
        line_per_word=contents.line_per_word,
        read=(chosen.text, chosen.pair, label),
        unread=chosen.unread,
        unread_files=contents.unread,
    )


def _contents(source: str) -> Contents:
    """Read all columns of a source."""
    check_source(source)
    path = Path(source)
    if path.is_file():
        return read_file(path)
    return from_datasets(source)


def _targets(
    values: list[Any], names: tuple[str, ...] | None, layout: Layout, *, needed: bool
) -> list[Any] | None:
    """Return the targets: None for a row without a label, NaN for a missing value.

    Without `needed`, return None instead of targets with missing values.
    """
    if not needed and any(value is None or is_missing(value) for value in values):
        return None
    if not layout.target_needed:
        return values
    missing = float("nan")
    filled = [missing if value is None else value for value in values]
    if names is None:
        return filled
    return [None if value == _UNLABELED else value for value in filled]


def _texts(values: Iterable[Any], column: str, contents: Contents, source: str) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        if not is_text(value):
            raise DataError(
                f"{source}: column '{column}' must hold text, row {row + 1} has "
                f"{ascii(value)[:60]}{_at(contents, row)}"
            )
        texts.append(value)
    return texts


def _words(values: Iterable[Any], column: str, contents: Contents, source: str) -> list[list[str]]:
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, list) or not all(map(is_text, value)):
            raise DataError(
                f"{source}: column '{column}' must hold lists of words, row {row + 1} has "
                f"{str(value)[:60]!r}{_at(contents, row)}"
            )
        texts.append(value)
    return texts


def _at(contents: Contents, row: int) -> str:
    line = contents.lines[row] if contents.lines else None
    return "" if line is None else f" (line {line})"
