"""Rows of a data file, and the layout of the columns they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.config import Config
from edge.provenance import Word

SCORE = "score"
# Column names of first and second text in GLUE, CLUE, retrieval and embedding data sets.
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
    """The usual names of the columns that a task reads, preferred names first.

    pairs: column names of first and second text. pair_needed, target_needed: the columns are
    required. words: texts are lists of words. expects: description of the required columns, for
    error messages.
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
    """The names of the columns to read, where they differ from the usual ones."""

    text: Word | None = None
    text_pair: Word | None = None
    label: Word | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a data file: texts, and second texts and targets if present.

    A target of None means that the row has no label, such as an augmented text or the label -1 of
    `datasets`; a value missing from the file is NaN.

    target_names: class names of integer targets, if the file has them. words: the words of each
    text, if the file has lists of words. scored: the name of the target column says that it holds
    scores, so whole numbers are not classes. numbers, lines: row number and line number in the
    file of each row, from 1. line_per_word: each word of a row has its own line. read: names of
    the columns of texts, second texts and targets. unread: unread columns that look like texts.
    unread_files: data files of the folder that belong to none of its splits.
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
        """Return the number of a row in the file, from 1."""
        numbered = self.numbers is not None and row < len(self.numbers)
        return self.numbers[row] if numbered and self.numbers else row + 1

    def place(self, row: int, word: int = 0) -> str:
        """Return the location of a row, or of a word of it: "line 3, row 2", or "row 2"."""
        line = self._line(row)
        if line is None:
            return f"row {self.number(row)}"
        return f"line {line + word * self.line_per_word}, row {self.number(row)}"

    def head(self, count: int | None) -> Table:
        """Return the first `count` rows; all when None."""
        return self.take(range(min(count, len(self)))) if count is not None else self

    def take(self, rows: Sequence[int]) -> Table:
        """Return the rows with these indices; they keep their numbers and lines."""

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
        # Rows may have been appended to those of the file.
        located = self.lines is not None and row < len(self.lines)
        return self.lines[row] if located and self.lines else None
