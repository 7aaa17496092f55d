"""Rows of a data file, and the layout of the columns they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.config import Config
from edge.provenance import Word

SCORE = "score"
# First and second text, as GLUE, CLUE, retrieval and embedding data sets name them.
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_A", "sentence_B"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "document"),
    ("query", "passage"),
    ("query", "document"),
    ("anchor", "positive"),
)


@dataclass(frozen=True)
class Layout:
    """The usual names of the columns a task reads, best first.

    pairs: names that belong together as first and second text. pair_needed, target_needed:
    without them a row is of no use. words: texts are lists of words. expects: the columns of a
    file of that kind, for error messages.
    """

    text: tuple[str, ...] = ("text", "sentence1", "sentence")
    pair: tuple[str, ...] = ("text_pair", "sentence2")
    pairs: tuple[tuple[str, str], ...] = ()
    target: tuple[str, ...] = ("label", SCORE, "labels")
    pair_needed: bool = False
    target_needed: bool = True
    words: bool = False
    expects: str | None = None


TEXTS = Layout(pairs=PAIRS)


class Columns(Config):
    """Which columns to read, where their names are not the usual ones."""

    text: Word | None = None
    text_pair: Word | None = None
    label: Word | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a data file: texts, second texts where there are any, and targets likewise.

    A target of None is that of a row without a label, as augmented texts and the label -1 of
    `datasets` are; one that is missing where the file should have it is not a number.

    target_names: the classes of integer targets, where the file names them. words: each text as
    the words it came in, where it came in words. scored: whether the targets are scores by the
    name of their column, so that whole numbers among them are no classes. numbers, lines: the row
    of the data and the line of the file that each row is at, counted from 1; line_per_word: each
    word of a row has a line of its own. read: the names of the columns of texts, second texts and
    targets. unread: columns that look like texts and were not read. unread_files: data files of
    the folder that are in none of its splits.
    """

    source: str
    texts: list[str]
    pairs: list[str] | None
    targets: list[Any] | None
    target_names: tuple[str, ...] | None = None
    words: list[list[str]] | None = None
    scored: bool = False
    numbers: list[int] | None = None
    lines: list[int | None] | None = None
    line_per_word: bool = False
    read: tuple[str | None, str | None, str | None] = (None, None, None)
    unread: tuple[str, ...] = ()
    unread_files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def number(self, row: int) -> int:
        """The number that a row has in the file, counted from 1."""
        known = self.numbers is not None and row < len(self.numbers)
        return self.numbers[row] if known and self.numbers else row + 1

    def place(self, row: int, word: int = 0) -> str:
        """Where a row, or a word of it, stands in the file: "line 3, row 2", or "row 2"."""
        line = self._line(row)
        if line is None:
            return f"row {self.number(row)}"
        return f"line {line + word * self.line_per_word}, row {self.number(row)}"

    def head(self, count: int | None) -> Table:
        """The first `count` rows; all when None."""
        return self.take(range(min(count, len(self)))) if count is not None else self

    def take(self, rows: Sequence[int]) -> Table:
        """The rows with these indices; they keep their places in the file."""

        def pick(column: list[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in rows]

        return replace(
            self,
            texts=[self.texts[i] for i in rows],
            pairs=pick(self.pairs),
            targets=pick(self.targets),
            words=pick(self.words),
            numbers=[self.number(i) for i in rows],
            lines=None if self.lines is None else [self._line(i) for i in rows],
        )

    def _line(self, row: int) -> int | None:
        # Rows may have been added behind those of the file.
        known = self.lines is not None and row < len(self.lines)
        return self.lines[row] if known and self.lines else None
