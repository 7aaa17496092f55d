"""Mapping of the classes in a data file to the labels of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.data.table import Table
from edge.data.values import (
    Kind,
    canonical,
    check_same_kind,
    distinct,
    kind_of,
    number_of,
    row_error,
    whole_number,
)
from edge.errors import DataError, nearest

_UNNAMED = re.compile(r"LABEL_(\d+)")
_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class ClassMapping:
    """Class index of each `canonical` value, with the interpretation of the column."""

    kind: Kind
    index: dict[str, int]
    description: str
    warning: str | None = None

    def indices(self, values: Sequence[Any]) -> list[int]:
        """Return the class index of each value."""
        index_by_key: dict[Any, int] = {}
        indices = []
        for value in values:
            # 1, 1.0 and True are one key of a dict, and not one value here.
            key = value if isinstance(value, str) else (type(value), str(value))
            if key not in index_by_key:
                index_by_key[key] = self.index[canonical(value)]
            indices.append(index_by_key[key])
        return indices


def map_classes(
    table: Table, values: Sequence[Any], rows: Sequence[int], labels: Sequence[str]
) -> ClassMapping:
    """Map the values of a column to labels, with one interpretation for all of them.

    Names are looked up in the labels, whole numbers are positions among the file's class names if
    it has any, else among the labels. rows: row of each value in the table. Raises DataError,
    naming the row, for a value that is not a label or of another kind than the first.
    """
    values, rows = distinct(values, rows)
    if table.target_names:
        return _by_schema(table, values, rows, labels)
    names = [canonical(value) for value in values]
    by_name = _by_name(names, labels)
    if set(names) <= set(by_name):
        return ClassMapping("names", by_name, "class names")
    check_same_kind(table, values, rows)
    odd = next(i for i, name in enumerate(names) if name not in by_name)
    if kind_of(values[odd]) == "name" or by_name:
        raise _unknown(table, rows[odd], values[odd], labels)
    return _by_number(table, values, rows, labels)


def are_named(labels: Sequence[str]) -> bool:
    """Return True unless the labels are Transformers' placeholders LABEL_0, LABEL_1, ..."""
    return not all(_UNNAMED.fullmatch(label) for label in labels)


def position_warning(labels: Sequence[str], noun: str) -> str:
    """Return the warning that numbers are taken as positions among named labels."""
    shown = [f"{i} = {name}" for i, name in enumerate(labels[:_SHOWN_CLASSES])]
    more = ", ..." if len(labels) > _SHOWN_CLASSES else ""
    return (
        f"numbers are taken as positions among the model's {noun}, {', '.join(shown)}{more}: "
        "write names where the data counts otherwise"
    )


def order_warning(labels: Mapping[str, str]) -> str:
    """Return the warning that a file's names are matched to unnamed labels by their order.

    labels: name in the file -> label.
    """
    shown = [f"{name} = {label}" for name, label in labels.items()]
    return (
        "the model's labels have no names, so the file's are taken in their order: "
        f"{', '.join(shown[:_SHOWN_CLASSES])}"
    )


def _by_number(
    table: Table, values: Sequence[Any], rows: Sequence[int], labels: Sequence[str]
) -> ClassMapping:
    index = {}
    for value, row in zip(values, rows, strict=True):
        number = whole_number(value)
        if number is None and number_of(value) is not None:
            raise row_error(
                table, row, f"label {value!r} is a score, and the model has {len(labels)} classes"
            )
        if number is None or not 0 <= number < len(labels):
            raise _unknown(table, row, value, labels)
        index[canonical(value)] = number
    if not are_named(labels):
        # A config may list LABEL_1 before LABEL_0.
        order = {int(label.removeprefix("LABEL_")): i for i, label in enumerate(labels)}
        index = {name: order.get(number, number) for name, number in index.items()}
        return ClassMapping("numbers", index, "class numbers")
    _check_digits(table, index, labels)
    return ClassMapping("numbers", index, "class numbers", position_warning(labels, "labels"))


def _check_digits(table: Table, index: dict[str, int], labels: Sequence[str]) -> None:
    """Raise DataError if numbers in label names differ from their positions, as in "1 star"."""
    digits = [re.findall(r"\d+", label) for label in labels]
    if any(len(numbers) != 1 for numbers in digits):
        return
    for name, number in index.items():
        if int(digits[number][0]) != number:
            raise DataError(
                f"{table.source}: label {name} may be the model's label at position {number}, "
                f"'{labels[number]}', or the one with {name} in its name: write the names in the "
                f"file ({', '.join(labels[:_SHOWN_CLASSES])})"
            )


def _by_schema(
    table: Table, values: Sequence[Any], rows: Sequence[int], labels: Sequence[str]
) -> ClassMapping:
    """Map numbers, via the file's class names, to the model's labels of the same names."""
    names = table.target_names or ()
    index: dict[str, int] = {}
    by_name = _by_name(names, labels)
    unnamed_labels = not are_named(labels) and len(names) == len(labels)
    if unnamed_labels and not set(names) <= set(by_name):
        by_name = {}  # a name may be LABEL_1 by coincidence, for another class
    for value, row in zip(values, rows, strict=True):
        number = whole_number(value)
        if number is None or not 0 <= number < len(names):
            raise row_error(
                table, row, f"label {value!r} is no position among the file's {len(names)} classes"
            )
        name = names[number]
        if name not in by_name and not unnamed_labels:
            raise _unknown(table, row, name, labels)
        index[canonical(value)] = by_name.get(name, number)
    if unnamed_labels and not by_name:
        warning = order_warning(dict(zip(names, labels, strict=True)))
        return ClassMapping("names", index, "class names of the file", warning)
    return ClassMapping("names", index, "class names of the file")


def _by_name(names: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Return the label index of each known name; case is ignored unless all names match exactly."""
    names = list(names)
    exact = {label: i for i, label in enumerate(labels) if labels.count(label) == 1}
    if set(names) <= set(exact):
        return {name: exact[name] for name in names}
    folded = [label.strip().casefold() for label in labels]
    unique = {label: i for i, label in enumerate(folded) if folded.count(label) == 1}
    return {name: unique[name.casefold()] for name in names if name.casefold() in unique}


def _unknown(table: Table, row: int, value: Any, labels: Sequence[str]) -> DataError:
    guess = nearest(str(value), labels) if kind_of(value) == "name" else None
    hint = f": did you mean '{guess}'?" if guess else ""
    if whole_number(value) == -1:
        hint = ": rows without a label have -1 in some data sets, leave them out"
    shown = ", ".join(labels[:_SHOWN_CLASSES]) + ", ..." * (len(labels) > _SHOWN_CLASSES)
    return row_error(
        table,
        row,
        f"label {value!r} is not one of the checkpoint's {len(labels)} labels "
        f"({shown or 'unnamed'}){hint}",
    )
