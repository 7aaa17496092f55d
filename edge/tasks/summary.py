"""The line on stderr that describes how a data file was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge.console import counted, say
from edge.data import Table, TargetColumn
from edge.tasks.base import Task
from edge.tokenization import Encoding

_SHOWN_CLASSES = 8
_SHOWN_FILES = 3


def say_understood(
    task: Task, table: Table, encodings: Sequence[Encoding], *, max_length: int
) -> None:
    """Describe on stderr how the data was read, with a line for each warning.

    encodings: of the rows, with at most `max_length` tokens each.
    """
    column = target_column(task, table)
    say(summary_line(task, table, encodings, max_length=max_length, column=column))
    if column is not None and column.warning is not None:
        say(f"warning: {table.source}: {column.warning}")
    # A task that requires pairs needs no warning.
    pairs_unknown = task.takes_pairs and not task.layout.pair_needed and task.pairs is None
    if pairs_unknown and table.pairs is not None:
        say(
            f"warning: {table.source} has pairs of texts, and nothing tells whether the model "
            "reads pairs"
        )
    if table.unread_files:
        shown = ", ".join(table.unread_files[:_SHOWN_FILES])
        more = ", ..." if len(table.unread_files) > _SHOWN_FILES else ""
        say(
            f"warning: {table.source}: {shown}{more} is not read, since other files there are "
            "named after a split: name the file itself to read it"
        )
    for name in table.unread:
        say(f"warning: {table.source}: column '{name}' is not read{_how_to_read(task, table)}")


def summary_line(
    task: Task,
    table: Table,
    encodings: Sequence[Encoding],
    *,
    max_length: int,
    column: TargetColumn | None,
) -> str:
    """Describe the data in one line: task, rows, columns, class counts, truncation, tokens."""
    text, pair, label = table.read
    texts = f"pairs of {text or 'text'} and {pair or 'text_pair'}" if table.pairs else text
    parts = [f"{counted(len(table), 'row')} of {texts or 'text'}"]
    if column is not None:
        parts.append(f"{label or 'label'}: {column.description}{_counts(column)}")
    unlabeled = sum(value is None for value in table.targets or ())
    if unlabeled:
        parts.append(f"{counted(unlabeled, 'row')} without a label")
    blank = sum(not all(map(str.strip, row)) for row in _texts(table))
    if blank:
        parts.append(f"{blank:,} with an empty text")
    parts.append(_lengths(table, encodings, max_length))
    return f"{table.source}: {task.name}; {'; '.join(parts)}"


def _texts(table: Table) -> Iterable[tuple[str, ...]]:
    """Yield the one or two texts of each row."""
    columns = [table.texts] if table.pairs is None else [table.texts, table.pairs]
    return zip(*columns, strict=True)


def target_column(task: Task, table: Table) -> TargetColumn | None:
    """Return the target column of the labeled rows; None if there are none."""
    labelled = [row for row, value in enumerate(table.targets or ()) if value is not None]
    if not labelled:
        return None
    labeled_rows = table if len(labelled) == len(table) else table.take(labelled)
    return task.column(labeled_rows)


def _counts(column: TargetColumn) -> str:
    if not column.counts:
        return ""
    shown = [f"{name} {count:,}" for name, count in column.counts.items()]
    more = f" and {len(shown) - _SHOWN_CLASSES} more" if len(shown) > _SHOWN_CLASSES else ""
    return f", {', '.join(shown[:_SHOWN_CLASSES])}{more}"


def _lengths(table: Table, encodings: Sequence[Encoding], max_length: int) -> str:
    tokens = f"{sum(map(len, encodings)):,} tokens"
    cut = sum(encoding.cut for encoding in encodings)
    if cut:
        return f"{cut:,} cut at {max_length} tokens; {tokens}"
    texts = len(table) * (2 if table.pairs is not None else 1)
    pieces = f"in {len(encodings):,} pieces of up to {max_length} tokens; "
    return f"{pieces if len(encodings) > texts else f'none cut at {max_length} tokens; '}{tokens}"


def _how_to_read(task: Task, table: Table) -> str:
    if table.pairs is not None or not (task.layout.pair or task.layout.pairs):
        return ""
    return ": name it with --pair-column if it is a second text"
