"""The choice of the columns to read, made once for a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.data.table import TEXTS, Columns, Layout
from edge.errors import DataError, nearest

Rows = dict[str, list[Any]]
# Rows that are looked at to tell whether a column holds texts, and the words one then has.
_LOOKED_AT = 50
_TEXT_WORDS = 2.0
_SHOWN = 200


@dataclass(frozen=True)
class Choice:
    """Names of the columns of texts, second texts and targets, and those that look like texts."""

    text: str
    pair: str | None
    label: str | None
    unread: tuple[str, ...]


def choose_columns(
    source: str,
    rows: Rows,
    columns: Columns,
    layout: Layout,
    *,
    targets: bool,
    pairs: bool | None,
) -> Choice:
    """The columns to read: those named in `columns`, else the usual names of `layout`.

    pairs: whether a row is to have two texts; None where both will do. Raises DataError for a
    name that is not there, and where it is not plain which columns are the texts.
    """
    picker = _Picker(source, rows, layout, targets)
    text, pair = picker.texts(columns, pairs)
    label_needed = targets and layout.target_needed and bool(layout.target)
    label = picker.pick(columns.label, layout.target, "--label-column", optional=not label_needed)
    if text in (pair, label) or (pair is not None and pair == label):
        raise DataError(
            f"{source}: the column '{label if label in (text, pair) else text}' cannot be two of "
            "text, second text and label: name another"
        )
    read = (text, pair, label)
    known = {*layout.target, *layout.text} if layout.words else {*layout.target}
    unread = [name for name in rows if name not in read and name not in known]
    return Choice(*read, tuple(name for name in unread if _looks_like_text(rows[name])))


def _looks_like_text(values: Sequence[Any]) -> bool:
    some = [value for value in values[:_LOOKED_AT] if value is not None]
    if not some or not all(isinstance(value, str) for value in some):
        return False
    return sum(len(value.split()) for value in some) >= _TEXT_WORDS * len(some)


class _Picker:
    """Finds the columns of a layout among those a source has."""

    def __init__(self, source: str, rows: Rows, layout: Layout, targets: bool) -> None:
        self._source = source
        self._rows = rows
        self._layout = layout
        self._targets = targets
        usual = layout.text if targets else (*layout.text, *TEXTS.text)
        self._usual = tuple(dict.fromkeys(usual))

    def texts(self, columns: Columns, pairs: bool | None) -> tuple[str, str | None]:
        """The columns of the first and of the second text."""
        layout = self._layout
        complete = [(a, b) for a, b in layout.pairs if a in self._rows and b in self._rows]
        if columns.text is None and columns.text_pair is None and complete:
            first, second = self._only_pair(complete)
            if pairs is False:
                raise DataError(
                    f"{self._source} has pairs of texts, '{first}' and '{second}', and the model "
                    "reads one text: name the column to read with --text-column"
                )
            return first, second
        text = self._first(columns)
        needed = (self._targets and layout.pair_needed) or pairs is True
        if columns.text_pair is not None or pairs is not False:
            pair = self._second(columns, text, pairs, needed)
        else:
            pair = self._orphan(text) if columns.text is None else None
        if pair is not None and pairs is False:
            raise DataError(
                f"{self._source} has pairs of texts, '{text}' and '{pair}', and the model reads "
                "one text: leave out --pair-column, or name the column to read with --text-column"
            )
        return text, pair

    def _only_pair(self, complete: Sequence[tuple[str, str]]) -> tuple[str, str]:
        both = {name for pair in complete for name in pair}
        single = [name for name in self._layout.text if name in self._rows and name not in both]
        if len(complete) > 1 or single:
            names = [*dict.fromkeys(name for pair in complete for name in pair), *single]
            raise DataError(
                f"{self._source}: {', '.join(names)} may all be the text: name the one to read "
                "with --text-column, and the second of a pair with --pair-column"
            )
        return complete[0]

    def _first(self, columns: Columns) -> str:
        usual = self._usual
        if columns.text is None and columns.text_pair is not None:
            partners = [a for a, b in self._layout.pairs if b == columns.text_pair]
            usual = (*partners, *usual)
        text = self.pick(columns.text, usual, "--text-column")
        assert text is not None
        return text

    def _second(self, columns: Columns, text: str, pairs: bool | None, needed: bool) -> str | None:
        partners = [b for a, b in self._layout.pairs if a == text and b in self._rows]
        if columns.text_pair is not None or not partners:
            orphan = self._orphan(text)
            if columns.text_pair is None and orphan is not None:
                return orphan
            if pairs is True and columns.text_pair is None:
                raise DataError(
                    f"{self._source} has one text in each row, and the model reads two: name the "
                    f"second with --pair-column; it has {self._names()}"
                )
            usual = self._layout.pair if needed else ()
            return self.pick(columns.text_pair, usual, "--pair-column", optional=not needed)
        if len(partners) > 1:
            raise DataError(
                f"{self._source}: {' and '.join(partners)} may both be the second text: name one "
                "with --pair-column"
            )
        return partners[0]

    def _orphan(self, text: str) -> str | None:
        """A usual second text whose own first text the file lacks."""
        taken = {b for a, b in self._layout.pairs if a in self._rows and a != text}
        names = (n for n in self._layout.pair if n in self._rows and n != text and n not in taken)
        return next(names, None)

    def pick(
        self, wanted: str | None, usual: Sequence[str], flag: str, *, optional: bool = False
    ) -> str | None:
        """The column to read: the one asked for, else the first usual name that exists."""
        if wanted is not None and wanted in self._rows:
            return wanted
        known = next((name for name in usual if name in self._rows), None)
        if wanted is None and (known or optional):
            return known
        missing = wanted or " or ".join(usual[:2])
        guess = nearest(missing, self._rows) if wanted else self._other_case(usual)
        hint = f"did you mean '{guess}'? " if guess else f"name it with {flag}; "
        expects = f"; {self._layout.expects}" if self._layout.expects else ""
        raise DataError(
            f"{self._source} has no column '{missing}': {hint}it has {self._names()}"
            f"{self._no_header()}{expects}"
        )

    def _other_case(self, usual: Sequence[str]) -> str | None:
        lowered = {name.lower() for name in usual}
        return next((name for name in self._rows if name.lower() in lowered), None)

    def _names(self) -> str:
        names = ", ".join(self._rows)
        return names if len(names) <= _SHOWN else f"{names[:_SHOWN]}..."

    def _no_header(self) -> str:
        """A remark for names that look like data."""
        odd = any(len(name.split()) > 3 or name.replace(".", "").isdigit() for name in self._rows)
        return " (is the header line missing?)" if odd else ""
