"""CoNLL columns: one token per line, its tag in the last column, sentences end at empty lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.data.lines import split_lines
from edge.errors import DataError

Rows = dict[str, list[Any]]
_DOCUMENT = re.compile(r"-DOCSTART-(?:[\t ]|$)")
_SHOWN = 40


@dataclass(frozen=True)
class _Line:
    """The columns and number of a token's line. first: it is the first of its sentence."""

    number: int
    fields: list[str]
    first: bool


def read_sentences(path: Path, text: str) -> tuple[Rows, list[int | None]]:
    """Return tokens and tags of each sentence, and the first line number of each sentence.

    Raises DataError, naming the line, for an inconsistent number of columns, for comments, and if
    the first column numbers the tokens, as in CoNLL-U.
    """
    sentences = _sentences(path, text)
    _check_comments(path, sentences)
    _check_numbers(path, sentences)
    rows: Rows = {
        "tokens": [[line.fields[0] for line in sentence] for sentence in sentences],
        "tags": [[line.fields[-1] for line in sentence] for sentence in sentences],
    }
    return rows, [sentence[0].number for sentence in sentences]


def _sentences(path: Path, text: str) -> list[list[_Line]]:
    """Return the lines of each sentence, all with the same number of columns."""
    sentences: list[list[_Line]] = []
    sentence: list[_Line] = []
    lines = [line.strip(" ") for line in split_lines(text)]
    separator: str | None = None
    width = 0
    for number, line in enumerate((*lines, ""), start=1):
        if not line.strip() or _DOCUMENT.match(line):
            if sentence:
                sentences.append(sentence)
            sentence = []
            continue
        if separator is None:
            # A comment line does not show the separator of the lines below it.
            separator = _separator([line, *lines[number:]]) or ("\t" if "\t" in line else " ")
        fields = _fields(line, separator)
        if line.startswith("#"):
            expected = width or _width(lines[number:], separator)
            if expected and len(fields) != expected:
                raise _comment(path, number, line)
        _check_token(path, number, fields, width)
        width = width or len(fields)
        sentence.append(_Line(number, fields, first=not sentence))
    return sentences


def _separator(lines: Sequence[str]) -> str | None:
    """Return the column separator in the first line that does not start with #, or None."""
    line = _first_token(lines)
    return None if line is None else ("\t" if "\t" in line else " ")


def _width(lines: Sequence[str], separator: str) -> int:
    """Return the number of columns in the first line that does not start with #, or 0."""
    line = _first_token(lines)
    return 0 if line is None else len(_fields(line, separator))


def _first_token(lines: Sequence[str]) -> str | None:
    plain = (line for line in lines if line.strip() and not _DOCUMENT.match(line))
    return next((line for line in plain if not line.startswith("#")), None)


def _fields(line: str, separator: str) -> list[str]:
    # Only tab or space separates columns: a token may contain other kinds of space. Several spaces
    # count as one separator; an extra tab leaves a cell empty.
    if separator == "\t":
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _check_token(path: Path, number: int, fields: list[str], width: int) -> None:
    if (width and len(fields) != width) or len(fields) < 2:
        raise DataError(
            f"{path} line {number}: {len(fields)} columns where "
            f"{f'the lines above have {width}' if width else 'a token and its tag go'}"
        )
    for cell, name in ((fields[0], "token"), (fields[-1], "tag")):
        if not cell:
            raise DataError(
                f"{path} line {number} has an empty {name}: is there a tab too many at its "
                f"{'start' if name == 'token' else 'end'}?"
            )


def _check_comments(path: Path, sentences: Sequence[Sequence[_Line]]) -> None:
    """Raise DataError for a comment line that happens to have the right number of columns.

    It differs from a token # in its last column, which is not a tag of other tokens, nor #.
    """
    tags = {
        line.fields[-1] for part in sentences for line in part if not line.fields[0].startswith("#")
    }
    for line in (line for part in sentences for line in part):
        fields = line.fields
        if line.first and fields[0] == "#" and fields[-1] not in {*tags, "#"}:
            raise _comment(path, line.number, " ".join(fields))


def _comment(path: Path, number: int, line: str) -> DataError:
    return DataError(
        f"{path} line {number} looks like a comment, {line[:_SHOWN]!r}, which CoNLL columns have "
        "no place for: remove such lines"
    )


def _check_numbers(path: Path, sentences: Sequence[Sequence[_Line]]) -> None:
    """Raise DataError if the first of three or more columns numbers the tokens."""
    if not sentences or len(sentences[0][0].fields) < 3 or max(map(len, sentences)) < 2:
        return
    for start in (0, 1):
        if all(
            line.fields[0] == str(index)
            for sentence in sentences
            for index, line in enumerate(sentence, start)
        ):
            raise DataError(
                f"{path} line {sentences[0][0].number}: the first column numbers the tokens, as in "
                "CoNLL-U, and here it is the token itself: remove it, with `cut -f2-`"
            )
