"""Data files: TSV, CSV, JSON, Parquet, CoNLL, text lines, a `datasets` folder or name.

Which columns hold texts and targets depends on the task, see Layout. TSV has no quoting: a quote
is a character like any other.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.config import Config
from edge.errors import DataError, nearest

Rows = dict[str, list[Any]]
_SCORE = "score"


@dataclass(frozen=True)
class Layout:
    """The usual names of the columns a task reads, best first.

    pair_needed, target_needed: without them a row is of no use. words: texts are lists of words.
    expects: what a file of that kind looks like, for error messages.
    """

    text: tuple[str, ...] = ("text", "sentence1", "sentence")
    pair: tuple[str, ...] = ("text_pair", "sentence2")
    target: tuple[str, ...] = ("label", _SCORE, "labels")
    pair_needed: bool = False
    target_needed: bool = True
    words: bool = False
    expects: str | None = None


TEXTS = Layout()


class Columns(Config):
    """Which columns to read, where their names are not the usual ones."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a data file: texts, second texts where there are any, and targets likewise.

    words: each text as the words it came in, where it came in words. scored: whether the targets
    are scores by the name of their column, so that whole numbers among them are no classes.
    """

    source: str
    texts: list[str]
    pairs: list[str] | None
    targets: list[Any] | None
    target_names: tuple[str, ...] | None = None
    words: list[list[str]] | None = None
    scored: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int | None) -> Table:
        """The first `count` rows; all when None."""
        return self.take(range(min(count, len(self)))) if count is not None else self

    def take(self, rows: Sequence[int]) -> Table:
        """The rows with these indices."""

        def pick(column: list[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in rows]

        return replace(
            self,
            texts=[self.texts[i] for i in rows],
            pairs=pick(self.pairs),
            targets=pick(self.targets),
            words=pick(self.words),
        )


def read_table(
    source: str | Path,
    *,
    columns: Columns | None = None,
    targets: bool = True,
    layout: Layout = TEXTS,
) -> Table:
    """Read a data file or a `datasets` name ("NAME", "NAME@CONFIG", either with ":SPLIT").

    layout: the columns to look for; `Task.read` gives its task's. Without `targets` any file of
    texts will do. Raises DataError when the source is missing or empty, when a column is not
    there, or when a text is not text.
    """
    columns = columns or Columns()
    rows, names = _rows(str(source))
    if not rows or not next(iter(rows.values())):
        raise DataError(f"{source} is empty: it has no rows")
    pick = _Picker(str(source), rows, layout)
    usual = layout.text if targets else (*layout.text, *TEXTS.text)
    text = pick(columns.text, usual, "--text-column")
    assert text is not None
    needed = targets and layout.pair_needed
    pair = pick(columns.text_pair, layout.pair, "--pair-column", optional=not needed)
    needed = targets and layout.target_needed and bool(layout.target)
    label = pick(columns.label, layout.target, "--label-column", optional=not needed)
    in_words = layout.words and (targets or text in layout.text)
    words = _words(rows[text], text, source) if in_words else None
    return Table(
        source=str(source),
        texts=_texts(rows[text], text, source) if words is None else [" ".join(w) for w in words],
        pairs=None if pair is None else _texts(rows[pair], pair, source),
        targets=None if label is None else rows[label],
        target_names=names.get(label) if label else None,
        words=words,
        scored=label == _SCORE,
    )


def _rows(source: str) -> tuple[Rows, dict[str, tuple[str, ...]]]:
    """All columns of a source, and the class names of those that have them."""
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if path.is_file():
        if reader is None:
            raise DataError(
                f"{source}: unknown kind of data file '{path.suffix}': "
                f"use {', '.join(sorted(_READERS))}"
            )
        return reader(path), {}
    folder = Path(source.partition(":")[0].partition("@")[0])
    looks_local = reader is not None or folder.is_absolute() or source.startswith(".")
    if looks_local and not folder.is_dir():
        raise DataError(f"data file {source} does not exist: check the path")
    return _from_datasets(source)


def _read_separated(path: Path, **dialect: Any) -> Rows:
    # A field may hold a whole document; the csv module's own limit is 128 KiB.
    csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, **dialect))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from None
    if not lines:
        raise DataError(f"{path} is empty: it has no header row")
    header = lines[0]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"{path} line {number}: {len(line)} fields where the header has {len(header)}"
            )
    return {name: [line[i] for line in lines[1:]] for i, name in enumerate(header)}


def _read_tsv(path: Path) -> Rows:
    return _read_separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_json_lines(path: Path) -> Rows:
    rows: Rows = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is not valid JSON ({error})") from None
        if not isinstance(record, dict) or (rows and set(record) != set(rows)):
            raise DataError(f"{path} line {number}: every line must have the same keys")
        for name, value in record.items():
            rows.setdefault(name, []).append(value)
    return rows


def _read_json(path: Path) -> Rows:
    """SQuAD's own form as one row a question, or JSON lines."""
    try:
        document = json.loads(_text(path))
    except ValueError:
        return _read_json_lines(path)
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        return _read_json_lines(path)
    rows: Rows = {"id": [], "question": [], "context": [], "answers": []}
    try:
        for paragraph in (part for article in document["data"] for part in article["paragraphs"]):
            for asked in paragraph["qas"]:
                row = {**asked, "context": paragraph["context"]}
                for name, column in rows.items():
                    column.append(row[name])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} has 'data' but is not SQuAD's JSON: article, paragraph or question without "
            f"{error}"
        ) from None
    return rows


def _read_conll(path: Path) -> Rows:
    """A token a line, its tag in the last column; an empty line ends a sentence."""
    rows: Rows = {"tokens": [], "tags": []}
    sentence: list[list[str]] = []
    width = None
    for number, line in enumerate((*_text(path).split("\n"), ""), start=1):
        # Only these separate columns: a token may hold any other kind of space.
        fields = re.split("\t" if "\t" in line else " +", line.strip(" "))
        if not line.strip() or fields[0] == "-DOCSTART-":
            if sentence:
                rows["tokens"].append([token[0] for token in sentence])
                rows["tags"].append([token[-1] for token in sentence])
            sentence = []
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            raise DataError(
                f"{path} line {number}: {len(fields)} columns where "
                f"{'the lines above have ' + str(width) if width > 1 else 'a token and its tag go'}"
            )
        sentence.append(fields)
    return rows


def _read_lines(path: Path) -> Rows:
    return {"text": [line for line in _text(path).split("\n") if line.strip()]}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from None


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: Rows = pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file ({error})") from None
    return rows


_READERS = {
    ".tsv": _read_tsv,
    ".csv": _read_separated,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".conll": _read_conll,
    ".txt": _read_lines,
}


def _from_datasets(source: str) -> tuple[Rows, dict[str, tuple[str, ...]]]:
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # network, missing name, broken files: many classes, one meaning
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"no data file or data set '{source}' ({reason})") from None
    if isinstance(loaded, dict):
        if not split and len(loaded) > 1:
            raise DataError(
                f"{name} has several splits: name one, e.g. {name}:{next(iter(loaded))}"
            )
        if split and split not in loaded:
            raise DataError(f"{name} has no split '{split}': choose from {', '.join(loaded)}")
        loaded = loaded[split or next(iter(loaded))]
    # The classes of a label a row, or of one a word.
    classes = {key: getattr(value, "feature", value) for key, value in loaded.features.items()}
    names = {
        key: tuple(feature.names)
        for key, feature in classes.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return {key: list(loaded[key]) for key in loaded.column_names}, names


class _Picker:
    """Finds the columns of a layout among those a source has."""

    def __init__(self, source: str, rows: Rows, layout: Layout) -> None:
        self._source = source
        self._rows = rows
        self._layout = layout

    def __call__(
        self, wanted: str | None, usual: Sequence[str], flag: str, *, optional: bool = False
    ) -> str | None:
        """The column to read: the one asked for, else the first usual name that exists."""
        if wanted is not None and wanted in self._rows:
            return wanted
        found = next((name for name in usual if name in self._rows), None)
        if wanted is None and (found or optional):
            return found
        missing = wanted or " or ".join(usual[:2])
        guess = nearest(missing, self._rows) if wanted else None
        hint = f"did you mean '{guess}'? " if guess else f"name it with {flag}; "
        expects = f"; {self._layout.expects}" if self._layout.expects else ""
        raise DataError(
            f"{self._source} has no column '{missing}': {hint}it has {', '.join(self._rows)}"
            f"{expects}"
        )


def _texts(values: Iterable[Any], column: str, source: str | Path) -> list[str]:
    texts = []
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise DataError(
                f"{source}: column '{column}' must hold text, row {number} has {value!r}"
            )
        texts.append(value)
    return texts


def _words(values: Iterable[Any], column: str, source: str | Path) -> list[list[str]]:
    found = []
    for number, value in enumerate(values, start=1):
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise DataError(
                f"{source}: column '{column}' must hold lists of words, row {number} has "
                f"{str(value)[:60]!r}"
            )
        found.append(value)
    return found
