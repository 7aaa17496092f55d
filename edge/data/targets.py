"""What a column of targets holds: decided once for the whole column, never value by value."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.data.mapping import class_mapping
from edge.data.table import Table
from edge.data.values import (
    Kind,
    TargetColumn,
    by_label,
    is_missing,
    known_targets,
    number_of,
    refused,
)
from edge.errors import DataError

_SHOWN = 60
_SHOWN_CLASSES = 12


def class_column(table: Table, labels: Sequence[str] | None) -> TargetColumn:
    """One class a row, as indices among a model's `labels`.

    Raises DataError, naming the row, where a label is missing, is not among them, or is not of
    the kind that the others are.
    """
    labels = tuple(labels or ())
    values = known_targets(table, labels)
    for row, value in enumerate(values):
        if isinstance(value, list | dict | tuple):
            raise refused(
                table,
                row,
                f"label {str(value)[:_SHOWN]} is a list, and the model gives one class a row: "
                "several need a checkpoint with problem_type multi_label_classification",
            )
    mapping = class_mapping(table, values, range(len(values)), labels)
    indices = np.asarray(mapping.indices(values), np.int64)
    counts = np.bincount(indices, minlength=len(labels)).tolist()
    warning = mapping.warning
    unused = [i for i, count in enumerate(counts[: int(indices.max(initial=0))]) if not count]
    if mapping.kind == "numbers" and warning is None and unused:
        shown = ", ".join(labels[i] for i in unused[:_SHOWN_CLASSES])
        warning = f"no row has {shown}: write names, or numbers without a gap, if there is none"
    return TargetColumn(mapping.kind, indices, mapping.how, by_label(counts, labels), warning)


def label_sets(table: Table, labels: Sequence[str] | None) -> TargetColumn:
    """Any number of classes a row, as rows of 0 and 1 (N, labels).

    A column holds lists or comma-separated names, lists of numbers, or lists of a flag, 0 or 1,
    for every label. A row with none of the labels has an empty list, or an empty cell.
    Raises DataError as `class_column` does, and where lists may be numbers as well as flags.
    """
    labels = tuple(labels or ())
    count = len(labels)
    sets = as_lists(table, known_targets(table, labels, empty=True), labels)
    if not table.target_names and are_flags(table, sets, count):
        flags = np.asarray([list(map(number_of, part)) for part in sets], np.float64)
        found = flags.astype(np.int64).reshape(len(sets), count)
        how = f"lists of {count} flags, one for each label"
        return TargetColumn("flags", found, how, by_label(found.sum(0).tolist(), labels))
    flat = [value for part in sets for value in part]
    rows = [row for row, part in enumerate(sets) for _ in part]
    found = np.zeros((len(sets), count), np.int64)
    kind: Kind = "sets of names"
    how, warning = "lists of class names, all of them empty", None
    if flat:
        mapping = class_mapping(table, flat, rows, labels)
        np.add.at(found, (rows, mapping.indices(flat)), 1)
        twice = np.flatnonzero((found > 1).any(-1))
        if len(twice):
            raise refused(table, int(twice[0]), "one label is there twice")
        kind = "sets of names" if mapping.kind == "names" else "sets of numbers"
        how, warning = f"lists of {mapping.how}", mapping.warning
    return TargetColumn(kind, found, how, by_label(found.sum(0).tolist(), labels), warning)


def score_column(table: Table) -> TargetColumn:
    """A finite number a row; raises DataError, naming the row, for anything else."""
    if table.target_names:
        shown = ", ".join(table.target_names[:_SHOWN_CLASSES])
        raise DataError(
            f"{table.source}: column '{table.read[2] or 'label'}' holds classes ({shown}), and a "
            "regression needs numbers: name a column of scores with --label-column"
        )
    values = []
    for row, value in enumerate(known_targets(table, wanted="regression target")):
        number = number_of(value)
        if number is None:
            raise refused(
                table, row, f"a regression target must be a number, not {str(value)[:_SHOWN]!r}"
            )
        if not math.isfinite(number):
            raise refused(table, row, f"a regression target is not finite ({value!r})")
        values.append(float(number))
    found = np.asarray(values, np.float64)
    span = f" from {found.min():g} to {found.max():g}" if len(found) else ""
    warning = None
    if len(found) and found.min() == found.max():
        warning = "all scores are equal, so that no correlation with them can be measured"
    return TargetColumn("scores", found, f"scores{span}", {}, warning)


def as_lists(table: Table, values: Sequence[Any], labels: Sequence[str]) -> list[list[Any]]:
    """Each row's labels as a list, from lists or from text.

    labels: names that are one name, also with a comma in them, where all cells are such.
    """
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    parse = any(text.strip().startswith("[") for text in texts)
    whole = all(text in labels for text in texts)
    sets = []
    for row, value in enumerate(values):
        if isinstance(value, str) and parse:
            value = _parsed(table, row, value)
        elif isinstance(value, str) and not whole:
            value = [part.strip() for part in value.split(",")] if value.strip() else []
        elif not isinstance(value, list | tuple):
            value = [value] if value != "" else []
        for part in value:
            if part is None or (is_missing(part) and part not in labels):
                raise refused(table, row, f"has an empty label in {str(value)[:_SHOWN]}", "")
        sets.append(list(value))
    return sets


def are_list_texts(values: Sequence[Any]) -> bool:
    """Whether values are lists written as text, such as "['a', 'b']", by the first one."""
    return bool(values) and isinstance(values[0], str) and _literal_list(values[0]) is not None


def _parsed(table: Table, row: int, value: str) -> list[Any]:
    found = _literal_list(value) if value.strip() else []
    if found is None:
        raise refused(
            table, row, f"has {value[:_SHOWN]!r}, no list in brackets as other rows have", ""
        )
    return found


def _literal_list(text: str) -> list[Any] | None:
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, list) else None


def are_flags(table: Table, sets: Sequence[list[Any]], count: int) -> bool:
    """Whether lists say 0 or 1 for every label; refused where they may be numbers as well."""
    if not sets or any(len(part) != count for part in sets):
        return False
    values = [value for part in sets for value in part]
    if any(number_of(v) not in (0, 1) for v in values):
        return False
    certain = any(
        isinstance(value, bool | np.bool_) or isinstance(number_of(value), float)
        for value in values
    )
    if not certain and all(len(set(part)) == len(part) for part in sets):
        raise DataError(
            f"{table.source}: {table.place(0)} has the labels {sets[0]}, which may be numbers of "
            "labels or a flag for each: write names, or flags as 0.0 and 1.0"
        )
    return True
