"""Classification of single target values, and the errors for them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from edge.data.table import Table
from edge.errors import DataError

Kind = Literal[
    "names", "numbers", "scores", "sets of names", "sets of numbers", "flags", "tags", "answers"
]
_MISSING = {"", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "Null"}
_MISSING |= {"None"}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")
# Python refuses to convert whole numbers of more than 4,300 digits.
_DIGITS = 4000
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True)
class TargetColumn:
    """A target column in the form that a task's metric reads.

    values: class indices (N,), rows of 0 and 1 (N, classes), scores (N,), or the tag names of each
    row. description: the interpretation of the column, for display. counts: class name -> number
    of rows or words. warning: a possible problem.
    """

    kind: Kind
    values: Any
    description: str
    counts: dict[str, int]
    warning: str | None = None


def checked_targets(
    table: Table,
    labels: Sequence[str] = (),
    *,
    noun: str = "label",
    unlabeled: bool = False,
    empty: bool = False,
) -> list[Any]:
    """Return all targets; raises DataError, naming the first row, if one is missing.

    labels: names that never count as missing values. noun: the word for a target in errors.
    unlabeled: rows without a label (None) are allowed. empty: empty cells are allowed.
    """
    values = table.targets or []
    unlabeled_rows = [row for row, value in enumerate(values) if value is None]
    if unlabeled_rows and not unlabeled:
        count = f"{len(unlabeled_rows)} of {len(values)} rows"
        raise row_error(
            table, unlabeled_rows[0], f"has no {noun} ({count}): leave such rows out", ""
        )
    for row, value in enumerate(values):
        if value is None or (empty and isinstance(value, str) and not value.strip()):
            continue
        if is_missing(value) and value not in labels:
            raise row_error(
                table, row, f"a {noun} is missing ({value!r}): fill it in or leave out the row"
            )
    return values


def is_missing(value: Any) -> bool:
    """Return True for a placeholder of a missing value: empty, NaN, null."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return isinstance(value, float) and math.isnan(value)


def is_text(value: Any) -> bool:
    """Return True for a string that UTF-8 can encode, so without lone surrogates ("\\ud83d")."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_same_kind(table: Table, values: Sequence[Any], rows: Sequence[int]) -> None:
    """Raise DataError for a value of another kind than the first."""
    kinds = [kind_of(value) for value in values]
    odd = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
    if odd is not None:
        raise row_error(
            table,
            rows[odd],
            f"label {values[odd]!r} is a {kinds[odd]} where {table.place(rows[0])} has the "
            f"{kinds[0]} {values[0]!r}: a column holds names or numbers, not both",
        )


def kind_of(value: Any) -> str:
    """Return the kind of a value: "name", "number", "truth value" or "list"."""
    if isinstance(value, bool | np.bool_):
        return "truth value"
    if isinstance(value, list | tuple | dict):
        return "list"
    return "name" if number_of(value) is None else "number"


def number_of(value: Any) -> float | int | None:
    """Return the number that a value is or spells, else None. Truth values are 0 and 1."""
    if isinstance(value, str):
        value = value.strip()
        if _WHOLE.fullmatch(value) and len(value) <= _DIGITS:
            return int(value)
        if _NUMBER.fullmatch(value) or _INFINITE.fullmatch(value):
            return float(value)
        return None
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float | np.number | np.bool_ | Decimal):
        return float(value)
    return None


def whole_number(value: Any) -> int | None:
    """Return the whole number that a value equals, also as 2.0, else None."""
    number = number_of(value)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def canonical(value: Any) -> str:
    """Return one string per class: "2" for 2, 2.0, "2" and "2.0"; names without outer spaces."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    whole = whole_number(value)
    return str(value).strip() if whole is None else str(whole)


def distinct(values: Sequence[Any], rows: Sequence[int]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in order of appearance, and the first row of each."""
    first: dict[Any, tuple[Any, int]] = {}
    for value, row in zip(values, rows, strict=True):
        # 1, 1.0 and True are one key of a dict, and not one value here.
        key = value if isinstance(value, str) else (type(value), str(value))
        first.setdefault(key, (value, row))
    return [value for value, _ in first.values()], [row for _, row in first.values()]


def by_label(counts: Sequence[int], labels: Sequence[str]) -> dict[str, int]:
    """Return counts by label name; labels with the same name also have their index."""
    return {
        label if labels.count(label) == 1 else f"{label} ({i})": count
        for i, (label, count) in enumerate(zip(labels, counts, strict=True))
    }


def row_error(
    table: Table, row: int, problem: str, colon: str = ":", *, word: int = 0
) -> DataError:
    """Return the error for a row, or a word of it, with its location in the file."""
    return DataError(f"{table.source} {table.place(row, word)}{colon} {problem}")
