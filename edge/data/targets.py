"""Interpretation of a target column, decided once for the whole column."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.data.mapping import map_classes
from edge.data.table import Table
from edge.data.values import (
    Kind,
    TargetColumn,
    by_label,
    checked_targets,
    is_missing,
    number_of,
    row_error,
)
from edge.errors import DataError

_SHOWN = 60
_SHOWN_CLASSES = 12


def class_column(table: Table, labels: Sequence[str] | None) -> TargetColumn:
    """Return one class per row, as indices into a model's `labels`.

    Raises DataError, naming the row, for a label that is missing, not in `labels`, or of another
    kind than the first.
    """
    labels = tuple(labels or ())
    values = checked_targets(table, labels)
    for row, value in enumerate(values):
        if isinstance(value, list | dict | tuple):
            raise row_error(
                table,
                row,
                f"label {str(value)[:_SHOWN]} is a list, and the model gives one class a row: "
                "several need a checkpoint with problem_type multi_label_classification",
            )
    mapping = map_classes(table, values, range(len(values)), labels)
    indices = np.asarray(mapping.indices(values), np.int64)
    counts = np.bincount(indices, minlength=len(labels)).tolist()
    warning = mapping.warning
    unused = [i for i, count in enumerate(counts[: int(indices.max(initial=0))]) if not count]
    if mapping.kind == "numbers" and warning is None and unused:
        shown = ", ".join(labels[i] for i in unused[:_SHOWN_CLASSES])
        warning = f"no row has {shown}: write names, or numbers without a gap, if there is none"
    return TargetColumn(
        mapping.kind, indices, mapping.description, by_label(counts, labels), warning
    )


def label_sets(table: Table, labels: Sequence[str] | None) -> TargetColumn:
    """Return any number of classes per row, as rows of 0 and 1 (N, labels).

    The column holds lists of names, comma-separated names, lists of class numbers, or lists with a
    flag, 0 or 1, per label. A row without labels has an empty list or an empty cell.
    Raises DataError as `class_column` does, and if lists may be either numbers or flags.
    """
    labels = tuple(labels or ())
    count = len(labels)
    sets = as_lists(table, checked_targets(table, labels, empty=True), labels)
    if not table.target_names and are_flags(table, sets, count):
        flags = np.asarray([list(map(number_of, part)) for part in sets], np.float64)
        label_matrix = flags.astype(np.int64).reshape(len(sets), count)
        description = f"lists of {count} flags, one for each label"
        return TargetColumn(
            "flags", label_matrix, description, by_label(label_matrix.sum(0).tolist(), labels)
        )
    all_labels = [value for part in sets for value in part]
    rows = [row for row, part in enumerate(sets) for _ in part]
    label_matrix = np.zeros((len(sets), count), np.int64)
    kind: Kind = "sets of names"
    description, warning = "lists of class names, all of them empty", None
    if all_labels:
        mapping = map_classes(table, all_labels, rows, labels)
        np.add.at(label_matrix, (rows, mapping.indices(all_labels)), 1)
        duplicates = np.flatnonzero((label_matrix > 1).any(-1))
        if len(duplicates):
            raise row_error(table, int(duplicates[0]), "one label is there twice")
        kind = "sets of names" if mapping.kind == "names" else "sets of numbers"
        description, warning = f"lists of {mapping.description}", mapping.warning
    return TargetColumn(
        kind, label_matrix, description, by_label(label_matrix.sum(0).tolist(), labels), warning
    )


def score_column(table: Table) -> TargetColumn:
    """Return a finite number per row; raises DataError, naming the row, for anything else."""
    if table.target_names:
        shown = ", ".join(table.target_names[:_SHOWN_CLASSES])
        raise DataError(
            f"{table.source}: column '{table.read[2] or 'label'}' holds classes ({shown}), and a "
            "regression needs numbers: name a column of scores with --label-column"
        )
    values = []
    for row, value in enumerate(checked_targets(table, noun="regression target")):
        number = number_of(value)
        if number is None:
            raise row_error(
                table, row, f"a regression target must be a number, not {str(value)[:_SHOWN]!r}"
            )
        if not math.isfinite(number):
            raise row_error(table, row, f"a regression target is not finite ({value!r})")
        values.append(float(number))
    scores = np.asarray(values, np.float64)
    span = f" from {scores.min():g} to {scores.max():g}" if len(scores) else ""
    warning = None
    if len(scores) and scores.min() == scores.max():
        warning = "all scores are equal, so that no correlation with them can be measured"
    return TargetColumn("scores", scores, f"scores{span}", {}, warning)


def as_lists(table: Table, values: Sequence[Any], labels: Sequence[str]) -> list[list[Any]]:
    """Return the labels of each row as a list, from lists or from text.

    labels: names that are not split at commas if all cells are such names.
    """
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    parse = any(text.strip().startswith("[") for text in texts)
    all_known = all(text in labels for text in texts)
    sets = []
    for row, value in enumerate(values):
        if isinstance(value, str) and parse:
            value = _parsed(table, row, value)
        elif isinstance(value, str) and not all_known:
            value = [part.strip() for part in value.split(",")] if value.strip() else []
        elif not isinstance(value, list | tuple):
            value = [value] if value != "" else []
        for part in value:
            if part is None or (is_missing(part) and part not in labels):
                raise row_error(table, row, f"has an empty label in {str(value)[:_SHOWN]}", "")
        sets.append(list(value))
    return sets


def are_written_lists(values: Sequence[Any]) -> bool:
    """Return True if the first value is a list written as text, such as "['a', 'b']"."""
    return bool(values) and isinstance(values[0], str) and _literal_list(values[0]) is not None


def _parsed(table: Table, row: int, value: str) -> list[Any]:
    labels = _literal_list(value) if value.strip() else []
    if labels is None:
        raise row_error(
            table, row, f"has {value[:_SHOWN]!r}, no list in brackets as other rows have", ""
        )
    return labels


def _literal_list(text: str) -> list[Any] | None:
    try:
        literal = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return literal if isinstance(literal, list) else None


def are_flags(table: Table, sets: Sequence[list[Any]], count: int) -> bool:
    """Return True if all lists hold a flag, 0 or 1, per label.

    Raises DataError if they may be class numbers as well.
    """
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
