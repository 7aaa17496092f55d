"""Columns of tags, one for each word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge.data.mapping import are_named, in_order, positions
from edge.data.table import Table
from edge.data.values import (
    TargetColumn,
    canonical,
    distinct,
    is_missing,
    kind_of,
    known_targets,
    refused,
    whole_number,
)

# The word of a row that a tag is of.
_Place = tuple[int, int]


def tag_column(
    table: Table, words: Sequence[Sequence[str]], labels: Sequence[str], *, expects: str
) -> TargetColumn:
    """A tag a word by name; numbers are positions among the file's names, or else the labels.

    expects: what the task reads, for errors. Raises DataError, naming the row, for tags that are
    no list, too many or too few, missing, of two kinds, or numbers outside of the labels.
    """
    labels = tuple(labels)
    flat: list[Any] = []
    places: list[_Place] = []
    for row, tags in enumerate(known_targets(table)):
        if not isinstance(tags, list):
            raise refused(table, row, f"has {str(tags)[:40]!r} for its tags; {expects}", "")
        if len(tags) != len(words[row]):
            counts = f"{len(words[row])} tokens and {len(tags)} tags"
            raise refused(table, row, f"has {counts}; {expects}", "")
        flat += tags
        places += [(row, word) for word in range(len(tags))]
    _check_tags(table, flat, places)
    numbered = bool(flat) and kind_of(flat[0]) == "number" and canonical(flat[0]) not in labels
    names = [str(tag) for tag in flat]
    how, warning = "tags by name", None
    if numbered:
        names = _numbered(table, flat, places, labels, expects)
        how = f"tag numbers, by the names of the {'file' if table.target_names else 'model'}"
        if not table.target_names and are_named(labels):
            warning = positions(labels, "tags")
    if table.target_names and not are_named(labels) and len(table.target_names) == len(labels):
        order = dict(zip(table.target_names, labels, strict=True))
        names, warning = [order[name] for name in names], in_order(order)
    rest = iter(names)
    values = [[next(rest) for _ in part] for part in words]
    return TargetColumn("tags", values, how, dict(Counter(names)), warning)


def _check_tags(table: Table, flat: Sequence[Any], places: Sequence[_Place]) -> None:
    """Raise DataError for a tag that is missing, or of another kind than the first."""
    for tag, index in zip(*distinct(flat, range(len(flat))), strict=True):
        row, word = places[index]
        if tag is None or is_missing(tag) or (table.target_names and whole_number(tag) == -1):
            raise refused(table, row, f"tag {word + 1} is missing ({tag!r})", word=word)
        if kind_of(tag) != kind_of(flat[0]):
            raise refused(
                table,
                row,
                f"tag {tag!r} is a {kind_of(tag)} where the first tag, {flat[0]!r}, is a "
                f"{kind_of(flat[0])}: tags are names or numbers, not both",
                word=word,
            )


def _numbered(
    table: Table,
    flat: Sequence[Any],
    places: Sequence[_Place],
    labels: tuple[str, ...],
    expects: str,
) -> list[str]:
    """The names of tags that are numbers."""
    names = table.target_names or labels
    found = []
    for tag, (row, word) in zip(flat, places, strict=True):
        number = whole_number(tag)
        if number is None or not 0 <= number < len(names):
            raise refused(
                table,
                row,
                f"tag {canonical(tag)!r} is not one of the model's ({', '.join(labels)}); "
                f"{expects}",
                word=word,
            )
        found.append(names[number])
    return found
