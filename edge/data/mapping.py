"""Classes as a data file writes them, to the labels of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.data.table import Table
from edge.data.values import (
    Kind,
    canonical,
    check_alike,
    distinct,
    kind_of,
    number_of,
    refused,
    whole_number,
)
from edge.errors import DataError, nearest

_UNNAMED = re.compile(r"LABEL_(\d+)")
_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class ClassMapping:
    """Class indices of values by their text, see `canonical`, and how they were understood."""

    kind: Kind
    index: dict[str, int]
    how: str
    warning: str | None = None

    def indices(self, values: Sequence[Any]) -> list[int]:
        """The class of each value."""
        known: dict[Any, int] = {}
        found = []
        for value in values:
            # 1, 1.0 and True are one key of a dict, and not one value here.
            key = value if isinstance(value, str) else (type(value), str(value))
            if key not in known:
                known[key] = self.index[canonical(value)]
            found.append(known[key])
        return found


def class_mapping(
    table: Table, values: Sequence[Any], rows: Sequence[int], labels: Sequence[str]
) -> ClassMapping:
    """What the values of a column mean, decided for all of them together.

    Names are looked up, whole numbers are positions, both as the file names its classes where it
    does. rows: where each value stands in the table. Raises DataError, naming the row, for a value
    that is not among the labels or of another kind than the first.
    """
    values, rows = distinct(values, rows)
    if table.target_names:
        return _by_schema(table, values, rows, labels)
    names = [canonical(value) for value in values]
    by_name = _by_name(names, labels)
    if set(names) <= set(by_name):
        return ClassMapping("names", by_name, "class names")
    check_alike(table, values, rows)
    odd = next(i for i, name in enumerate(names) if name not in by_name)
    if kind_of(values[odd]) == "name" or by_name:
        raise _unknown(table, rows[odd], values[odd], labels)
    return _by_number(table, values, rows, labels)


def are_named(labels: Sequence[str]) -> bool:
    """Whether labels have names of their own, not Transformers' LABEL_0 and so on."""
    return not all(_UNNAMED.fullmatch(label) for label in labels)


def positions(labels: Sequence[str], what: str) -> str:
    """The warning for numbers that meet labels with names."""
    shown = [f"{i} = {name}" for i, name in enumerate(labels[:_SHOWN_CLASSES])]
    more = ", ..." if len(labels) > _SHOWN_CLASSES else ""
    return (
        f"numbers are taken as positions among the model's {what}, {', '.join(shown)}{more}: "
        "write names where the data counts otherwise"
    )


def in_order(labels: Mapping[str, str]) -> str:
    """The warning for names of a file that meet labels without names. labels: by those names."""
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
            raise refused(
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
    return ClassMapping("numbers", index, "class numbers", positions(labels, "labels"))


def _check_digits(table: Table, index: dict[str, int], labels: Sequence[str]) -> None:
    """Raise DataError where labels count otherwise than their order does, as "1 star" does."""
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
    """Numbers that the file itself names, to the model's labels of the same names."""
    names = table.target_names or ()
    index: dict[str, int] = {}
    by_name = _by_name(names, labels)
    bare = not are_named(labels) and len(names) == len(labels)
    if bare and not set(names) <= set(by_name):
        by_name = {}  # some name may be LABEL_1 by chance, and its class another
    for value, row in zip(values, rows, strict=True):
        number = whole_number(value)
        if number is None or not 0 <= number < len(names):
            raise refused(
                table, row, f"label {value!r} is no position among the file's {len(names)} classes"
            )
        name = names[number]
        if name not in by_name and not bare:
            raise _unknown(table, row, name, labels)
        index[canonical(value)] = by_name.get(name, number)
    if bare and not by_name:
        warning = in_order(dict(zip(names, labels, strict=True)))
        return ClassMapping("names", index, "class names of the file", warning)
    return ClassMapping("names", index, "class names of the file")


def _by_name(names: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Names that are labels to their indices; case counts only where all match with it."""
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
    return refused(
        table,
        row,
        f"label {value!r} is not one of the checkpoint's {len(labels)} labels "
        f"({shown or 'unnamed'}){hint}",
    )
