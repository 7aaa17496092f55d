"""From a data file to a table: which columns, which rows, and where they stand."""

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

# `datasets` marks rows without a label, as those of hidden test sets, by this class.
_UNLABELLED = -1


def read_table(
    source: str | Path,
    *,
    columns: Columns | None = None,
    targets: bool = True,
    layout: Layout = TEXTS,
    pairs: bool | None = None,
) -> Table:
    """Read a data file or a `datasets` name ("NAME", "NAME@CONFIG", either with ":SPLIT").

    layout: the columns to look for; `Task.read` gives its task's. Without `targets` any file of
    texts will do. pairs: whether a row is to have two texts; None where both will do.
    Raises DataError when the source is missing or empty, when a column is not there or not plain,
    or when a text is not text.
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
    """All columns of a source."""
    check_source(source)
    path = Path(source)
    if path.is_file():
        return read_file(path)
    return from_datasets(source)


def _targets(
    values: list[Any], names: tuple[str, ...] | None, layout: Layout, *, needed: bool
) -> list[Any] | None:
    """The targets, None for those without a label and not a number for those that are missing.

    None for all where some are missing and they are not needed.
    """
    if not needed and any(value is None or is_missing(value) for value in values):
        return None
    if not layout.target_needed:
        return values
    missing = float("nan")
    given = [missing if value is None else value for value in values]
    if names is None:
        return given
    return [None if value == _UNLABELLED else value for value in given]


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
