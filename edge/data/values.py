"""Single values of a column of targets: what they are, and how they are refused."""

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
# Python refuses to read or write whole numbers of more digits than 4,300; no class has that many.
_DIGITS = 4000
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True)
class TargetColumn:
    """A column of targets in the form a task's metric wants.

    values: class indices (N,), rows of 0 and 1 (N, classes), scores (N,), or the names of tags of
    each row. how: what the column holds, for a person. counts: rows, or words, of each class by
    name. warning: what may be wrong with it.
    """

    kind: Kind
    values: Any
    how: str
    counts: dict[str, int]
    warning: str | None = None


def known_targets(
    table: Table,
    labels: Sequence[str] = (),
    *,
    wanted: str = "label",
    unlabelled: bool = False,
    empty: bool = False,
) -> list[Any]:
    """All targets; raises DataError, naming the first row, where one is missing.

    labels: names that are no missing value, whatever they are. unlabelled: rows without a label,
    None, will do. empty: an empty cell means something.
    """
    values = table.targets or []
    bare = [row for row, value in enumerate(values) if value is None]
    if bare and not unlabelled:
        count = f"{len(bare)} of {len(values)} rows"
        raise refused(table, bare[0], f"has no {wanted} ({count}): leave such rows out", "")
    for row, value in enumerate(values):
        if value is None or (empty and isinstance(value, str) and not value.strip()):
            continue
        if is_missing(value) and value not in labels:
            raise refused(
                table, row, f"a {wanted} is missing ({value!r}): fill it in or leave out the row"
            )
    return values


def is_missing(value: Any) -> bool:
    """Whether a value is what files have where there is none: empty, NaN, null."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return isinstance(value, float) and math.isnan(value)


def is_text(value: Any) -> bool:
    """Whether a value is text that has an encoding: half a character, as "\\ud83d", has none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_alike(table: Table, values: Sequence[Any], rows: Sequence[int]) -> None:
    """Raise DataError for a value of another kind than the first."""
    kinds = [kind_of(value) for value in values]
    odd = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
    if odd is not None:
        raise refused(
            table,
            rows[odd],
            f"label {values[odd]!r} is a {kinds[odd]} where {table.place(rows[0])} has the "
            f"{kinds[0]} {values[0]!r}: a column holds names or numbers, not both",
        )


def kind_of(value: Any) -> str:
    """The kind of a value in a word: "name", "number", "truth value" or "list"."""
    if isinstance(value, bool | np.bool_):
        return "truth value"
    if isinstance(value, list | tuple | dict):
        return "list"
    return "name" if number_of(value) is None else "number"


def number_of(value: Any) -> float | int | None:
    """A number, or text that is one; None for anything else. Truth values are 0 and 1."""
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
    """The whole number that a value is, also as 2.0; None for anything else."""
    number = number_of(value)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def canonical(value: Any) -> str:
    """One text for one class: "2" for 2, 2.0, "2" and "2.0"; names without spaces around."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    whole = whole_number(value)
    return str(value).strip() if whole is None else str(whole)


def distinct(values: Sequence[Any], rows: Sequence[int]) -> tuple[list[Any], list[int]]:
    """The different values in their order, and the row that each is first at."""
    first: dict[Any, tuple[Any, int]] = {}
    for value, row in zip(values, rows, strict=True):
        # 1, 1.0 and True are one key of a dict, and not one value here.
        key = value if isinstance(value, str) else (type(value), str(value))
        first.setdefault(key, (value, row))
    return [value for value, _ in first.values()], [row for _, row in first.values()]


def by_label(counts: Sequence[int], labels: Sequence[str]) -> dict[str, int]:
    """Counts by the name of their label; labels of one name are told apart by their index."""
    return {
        label if labels.count(label) == 1 else f"{label} ({i})": count
        for i, (label, count) in enumerate(zip(labels, counts, strict=True))
    }


def refused(table: Table, row: int, problem: str, colon: str = ":", *, word: int = 0) -> DataError:
    """The error for a row, or a word of it, by its place in the file."""
    return DataError(f"{table.source} {table.place(row, word)}{colon} {problem}")
