"""The classes of a data file that no model names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge.data.table import Table
from edge.data.targets import are_flags, are_list_texts, as_lists, score_column
from edge.data.values import (
    canonical,
    check_alike,
    is_missing,
    kind_of,
    known_targets,
    refused,
    whole_number,
)
from edge.errors import DataError

_MAX_CLASSES = 1000


@dataclass(frozen=True)
class Classes:
    """The classes that a data file speaks of. problem_type: Transformers' own, where it tells."""

    labels: tuple[str, ...]
    problem_type: Literal["multi_label_classification"] | None = None


def classes_of(table: Table) -> Classes:
    """The classes of a file that no model names; one unnamed class where targets are scores.

    Whole numbers are classes, also as 0.0 to 3.0, unless their column is of scores by its name.
    Where they count from 0 they stay unnamed, else, or with more gaps than numbers, a class has
    its number for a name. Lists, also written as text, are several labels a row.
    Raises DataError, naming the row, for
    what is missing or of another kind than the rest.
    """
    table = _labelled(table)
    values = table.targets or []
    several = table.words is None and (
        any(isinstance(value, list) for value in values) or are_list_texts(values)
    )
    if table.target_names:
        labels = _checked(table, table.target_names)
        return Classes(labels, "multi_label_classification" if several else None)
    if table.words is not None:
        return Classes(_listed(table, values))
    if several:
        return _sets(table)
    check_alike(table, known_targets(table), range(len(values)))
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
    """The classes of rows with several labels each."""
    sets = as_lists(table, known_targets(table, empty=True), ())
    width = len(sets[0]) if sets else 0
    if width > 1 and are_flags(table, sets, width):
        labels = tuple(f"LABEL_{i}" for i in range(width))
    else:
        labels = _listed(table, sets)
    return Classes(labels, "multi_label_classification")


def _listed(table: Table, sets: Sequence[Any]) -> tuple[str, ...]:
    """The classes in lists."""
    flat: list[Any] = []
    rows: list[int] = []
    for row, part in enumerate(sets):
        if not isinstance(part, list):
            raise refused(table, row, f"has {str(part)[:40]!r} where a list goes", "")
        for value in part:
            if value is None or is_missing(value):
                raise refused(table, row, f"has a list with {value!r} in it", "")
        flat += part
        rows += [row] * len(part)
    check_alike(table, flat, rows)
    return _checked(table, _names(flat))


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    """Names in their order, or LABEL_0 and so on for numbers from 0."""
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
        other = forms.setdefault(unicodedata.normalize("NFC", label), label)
        if other != label:
            raise DataError(
                f"{table.source} writes the label '{label}' in two forms of Unicode, {other!a} "
                f"and {label!a}: write one"
            )
    return labels


def _check_commas(table: Table, labels: tuple[str, ...]) -> None:
    """Raise DataError where names with commas in them may be several labels a row."""
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
    """The rows that have a label, whatever it is."""
    values = table.targets or []
    return table.take([row for row, value in enumerate(values) if value is not None])
