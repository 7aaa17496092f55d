"""Class names taken from a data file, where no model gives them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge.data.table import Table
from edge.data.targets import are_flags, are_written_lists, as_lists, score_column
from edge.data.values import (
    canonical,
    check_same_kind,
    checked_targets,
    is_missing,
    kind_of,
    row_error,
    whole_number,
)
from edge.errors import DataError

_MAX_CLASSES = 1000


@dataclass(frozen=True)
class Classes:
    """Classes of a data file. problem_type: Transformers' own, if the file implies one."""

    labels: tuple[str, ...]
    problem_type: Literal["multi_label_classification"] | None = None


def classes_of(table: Table) -> Classes:
    """Return the classes of a file; one unnamed class if the targets are scores.

    Whole numbers are classes, also as 0.0 to 3.0, unless the name of their column is "score".
    Numbers from 0 give unnamed classes; numbers that start elsewhere, or have more gaps than
    values, become the names of their classes. Lists, also as text, are several labels per row.
    Raises DataError, naming the row, for missing values and mixed kinds of values.
    """
    table = _labelled(table)
    values = table.targets or []
    several = table.words is None and (
        any(isinstance(value, list) for value in values) or are_written_lists(values)
    )
    if table.target_names:
        labels = _checked(table, table.target_names)
        return Classes(labels, "multi_label_classification" if several else None)
    if table.words is not None:
        return Classes(_listed(table, values))
    if several:
        return _sets(table)
    check_same_kind(table, checked_targets(table), range(len(values)))
    numbers = bool(values) and kind_of(values[0]) == "number"
    if numbers and (table.scored or any(whole_number(value) is None for value in values)):
        score_column(table)
        return Classes(("LABEL_0",))
    labels = _checked(table, _names(values))
    _check_commas(table, labels)
    if len(labels) == 1:
        raise DataError(
            f"{table.source} has one class only, {values[0]!r} in every row: training needs at "
            "least two"
        )
    return Classes(labels)


def _sets(table: Table) -> Classes:
    """Return the classes of rows with several labels each."""
    sets = as_lists(table, checked_targets(table, empty=True), ())
    width = len(sets[0]) if sets else 0
    if width > 1 and are_flags(table, sets, width):
        labels = tuple(f"LABEL_{i}" for i in range(width))
    else:
        labels = _listed(table, sets)
    return Classes(labels, "multi_label_classification")


def _listed(table: Table, sets: Sequence[Any]) -> tuple[str, ...]:
    """Return the classes in lists of labels."""
    flat: list[Any] = []
    rows: list[int] = []
    for row, part in enumerate(sets):
        if not isinstance(part, list):
            raise row_error(table, row, f"has {str(part)[:40]!r} where a list goes", "")
        for value in part:
            if value is None or is_missing(value):
                raise row_error(table, row, f"has a list with {value!r} in it", "")
        flat += part
        rows += [row] * len(part)
    check_same_kind(table, flat, rows)
    return _checked(table, _names(flat))


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    """Return sorted class names, or LABEL_0, LABEL_1, ... for numbers from 0."""
    names = {canonical(value) for value in values}
    numbers = sorted(number for name in names if (number := whole_number(name)) is not None)
    if len(numbers) < len(names):
        return tuple(sorted(names))
    if numbers and numbers[0] == 0 and numbers[-1] + 1 < 2 * len(numbers):
        return tuple(f"LABEL_{i}" for i in range(numbers[-1] + 1))
    return tuple(map(str, numbers))


def _checked(table: Table, labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(labels) > _MAX_CLASSES:
        raise DataError(
            f"{table.source} has {len(labels)} labels: is --label-column the right one?"
        )
    if not labels:
        raise DataError(f"{table.source} has no label in any row: training needs at least two")
    forms: dict[str, str] = {}
    for label in labels:
        first_form = forms.setdefault(unicodedata.normalize("NFC", label), label)
        if first_form != label:
            raise DataError(
                f"{table.source} writes the label '{label}' in two forms of Unicode, {first_form!a}"
                f" and {label!a}: write one"
            )
    return labels


def _check_commas(table: Table, labels: tuple[str, ...]) -> None:
    """Raise DataError for names with commas that may stand for several labels per row."""
    joined = {label: {p for part in label.split(",") if (p := part.strip())} for label in labels}
    counts = Counter(part for parts in joined.values() for part in parts)
    for label, parts in joined.items():
        shared = sorted(part for part in parts if counts[part] > 1)
        if len(parts) > 1 and shared:
            raise DataError(
                f"{table.source}: label '{label}' may be one label or several, since "
                f'\'{shared[0]}\' is in another one too: write lists of names, ["a", "b"], or '
                "one name without commas"
            )


def _labelled(table: Table) -> Table:
    """Return the rows that have a label."""
    values = table.targets or []
    return table.take([row for row, value in enumerate(values) if value is not None])
