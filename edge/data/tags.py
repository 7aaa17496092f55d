"""Target columns with one tag per word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge.data.mapping import are_named, order_warning, position_warning
from edge.data.table import Table
from edge.data.values import (
    TargetColumn,
    canonical,
    checked_targets,
    distinct,
    is_missing,
    kind_of,
    row_error,
    whole_number,
)

# Row and word index of a tag.
_Place = tuple[int, int]


def tag_column(
    table: Table, words: Sequence[Sequence[str]], labels: Sequence[str], *, expects: str
) -> TargetColumn:
    """Return one tag name per word; numbers index the file's class names, or else the labels.

    expects: description of the required columns, for errors. Raises DataError, naming the row, for
    tags that are not a list, of the wrong number, missing, of mixed kinds, or outside the labels.
    """
    labels = tuple(labels)
    all_tags: list[Any] = []
    places: list[_Place] = []
    for row, tags in enumerate(checked_targets(table)):
        if not isinstance(tags, list):
            raise row_error(table, row, f"has {str(tags)[:40]!r} for its tags; {expects}", "")
        if len(tags) != len(words[row]):
            counts = f"{len(words[row])} tokens and {len(tags)} tags"
            raise row_error(table, row, f"has {counts}; {expects}", "")
        all_tags += tags
        places += [(row, word) for word in range(len(tags))]
    _check_tags(table, all_tags, places)
    numbered = (
        bool(all_tags) and kind_of(all_tags[0]) == "number" and canonical(all_tags[0]) not in labels
    )
    names = [str(tag) for tag in all_tags]
    description, warning = "tags by name", None
    if numbered:
        names = _numbered(table, all_tags, places, labels, expects)
        description = (
            f"tag numbers, by the names of the {'file' if table.target_names else 'model'}"
        )
        if not table.target_names and are_named(labels):
            warning = position_warning(labels, "tags")
    if table.target_names and not are_named(labels) and len(table.target_names) == len(labels):
        order = dict(zip(table.target_names, labels, strict=True))
        names, warning = [order[name] for name in names], order_warning(order)
    remaining_names = iter(names)
    values = [[next(remaining_names) for _ in part] for part in words]
    return TargetColumn("tags", values, description, dict(Counter(names)), warning)


def _check_tags(table: Table, all_tags: Sequence[Any], places: Sequence[_Place]) -> None:
    """Raise DataError for a missing tag, or one of another kind than the first."""
    for tag, index in zip(*distinct(all_tags, range(len(all_tags))), strict=True):
        row, word = places[index]
        if tag is None or is_missing(tag) or (table.target_names and whole_number(tag) == -1):
            raise row_error(table, row, f"tag {word + 1} is missing ({tag!r})", word=word)
        if kind_of(tag) != kind_of(all_tags[0]):
            raise row_error(
                table,
                row,
                f"tag {tag!r} is a {kind_of(tag)} where the first tag, {all_tags[0]!r}, is a "
                f"{kind_of(all_tags[0])}: tags are names or numbers, not both",
                word=word,
            )


def _numbered(
    table: Table,
    all_tags: Sequence[Any],
    places: Sequence[_Place],
    labels: tuple[str, ...],
    expects: str,
) -> list[str]:
    """Return the names of numeric tags."""
    names = table.target_names or labels
    tag_names = []
    for tag, (row, word) in zip(all_tags, places, strict=True):
        number = whole_number(tag)
        if number is None or not 0 <= number < len(names):
            raise row_error(
                table,
                row,
                f"tag {canonical(tag)!r} is not one of the model's ({', '.join(labels)}); "
                f"{expects}",
                word=word,
            )
        tag_names.append(names[number])
    return tag_names
