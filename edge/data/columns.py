"""Choice of the columns to read from a data file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.data.table import TEXTS, Columns, Layout
from edge.errors import DataError, nearest

Rows = dict[str, list[Any]]
# A column holds texts if its first _SAMPLE_ROWS values have at least _TEXT_WORDS words on average.
_SAMPLE_ROWS = 50
_TEXT_WORDS = 2.0
_SHOWN = 200


@dataclass(frozen=True)
class Choice:
    """Columns of texts, second texts and targets, and unread columns that look like texts."""

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
    """Choose the columns to read: those named in `columns`, else the usual names of `layout`.

    pairs: True if a row must have two texts, False if one; None allows both. Raises DataError for
    a missing column, and if it is ambiguous which columns are the texts.
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
    sample = [value for value in values[:_SAMPLE_ROWS] if value is not None]
    if not sample or not all(isinstance(value, str) for value in sample):
        return False
    return sum(len(value.split()) for value in sample) >= _TEXT_WORDS * len(sample)


class _Picker:
    """Find the columns of a layout in a data source."""

    def __init__(self, source: str, rows: Rows, layout: Layout, targets: bool) -> None:
        self._source = source
        self._rows = rows
        self._layout = layout
        self._targets = targets
        usual = layout.text if targets else (*layout.text, *TEXTS.text)
        self._usual = tuple(dict.fromkeys(usual))

    def texts(self, columns: Columns, pairs: bool | None) -> tuple[str, str | None]:
        """Return the columns of the first and of the second text."""
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
            pair = self._unpaired_second(text) if columns.text is None else None
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
            unpaired = self._unpaired_second(text)
            if columns.text_pair is None and unpaired is not None:
                return unpaired
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

    def _unpaired_second(self, text: str) -> str | None:
        """Return a usual second-text column whose usual first-text column is missing, or None."""
        paired = {b for a, b in self._layout.pairs if a in self._rows and a != text}
        names = (n for n in self._layout.pair if n in self._rows and n != text and n not in paired)
        return next(names, None)

    def pick(
        self, requested: str | None, usual: Sequence[str], flag: str, *, optional: bool = False
    ) -> str | None:
        """Return the requested column, else the first usual name that exists."""
        if requested is not None and requested in self._rows:
            return requested
        existing = next((name for name in usual if name in self._rows), None)
        if requested is None and (existing or optional):
            return existing
        missing = requested or " or ".join(usual[:2])
        guess = nearest(missing, self._rows) if requested else self._other_case(usual)
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
        """Return a hint if the column names look like data."""
        odd = any(len(name.split()) > 3 or name.replace(".", "").isdigit() for name in self._rows)
        return " (is the header line missing?)" if odd else ""
