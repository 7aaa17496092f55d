"""Readers of data files: all columns, with the line number of each row.

TSV has no quoting: a quote is an ordinary character.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.data.conll import read_sentences
from edge.data.lines import split_lines, whole_lines
from edge.data.records import from_json, from_json_lines
from edge.data.schema import schema_names
from edge.errors import DataError

Rows = dict[str, list[Any]]
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
# First bytes of binary files, to detect them under the extension of a text format.
_BINARY = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "Parquet", b"BZh": "bzip2"}
# A file with a larger share of NUL bytes in its first bytes is taken for UTF-16.
_WIDE_BYTES, _WIDE_SHARE = 64, 1 / 8
_SHOWN = 60


@dataclass(frozen=True)
class Contents:
    """All columns of a file by name, with metadata.

    class_names: column -> names that its integers index. lines: see Table. unread: names of data
    files in a folder that belong to none of its splits.
    """

    rows: Rows
    lines: list[int | None] | None = None
    line_per_word: bool = False
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def read_file(path: Path) -> Contents:
    """Read a file according to its extension; raises DataError when it is damaged."""
    kind = suffix(path)
    if kind not in READERS:
        raise DataError(
            f"{path}: unknown kind of data file '{''.join(path.suffixes[-2:])}': "
            f"use {', '.join(sorted(READERS))}, each but .parquet also as .gz"
        )
    if kind == ".parquet" and path.suffix.lower() == ".gz":
        raise DataError(f"{path}: Parquet compresses by itself: unpack it with gunzip")
    return READERS[kind](path)


def suffix(path: Path) -> str:
    """Return the extension of a file's format, without that of its compression."""
    uncompressed = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return uncompressed.suffix.lower()


def read_text(path: Path) -> str:
    """Read a text file, unpacked if compressed; raises DataError if it is not UTF-8."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}): is it complete?") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    _check_encoding(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line} cannot be read as UTF-8 text (byte 0x{data[error.start]:02x}): if "
            "the file is Latin-1, convert it with `iconv -f LATIN1 -t UTF-8`"
        ) from None
    if "\x00" in text:
        line = len(split_lines(text[: text.index("\x00")]))
        raise DataError(f"{path} line {line} holds a NUL character: remove it")
    return text


def _check_encoding(path: Path, data: bytes) -> None:
    """Raise DataError for a binary file or UTF-16, detected from the first bytes."""
    kind = next((name for magic, name in _BINARY.items() if data.startswith(magic)), None)
    if kind is not None:
        raise DataError(
            f"{path} cannot be read as text: it is a {kind} file; unpack or rename it, so that "
            "the ending of its name tells what it holds"
        )
    start = data[:_WIDE_BYTES]
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if wide or start.count(0) > _WIDE_SHARE * len(start):
        raise DataError(
            f"{path} cannot be read as UTF-8 text: it looks like UTF-16; convert it with "
            "`iconv -f UTF-16 -t UTF-8`"
        )


def _read_separated(path: Path, **dialect: Any) -> Contents:
    # A field may hold a whole document; the csv module's own limit is 128 KiB.
    csv.field_size_limit(1 << 30)
    reader = csv.reader(whole_lines(read_text(path)), **dialect)
    table: list[list[str]] = []
    lines: list[int | None] = []
    start = 1
    try:
        for fields in reader:
            table.append(fields)
            lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} line {start}: quotes do not match ({error}): within quotes, write each "
            "quote twice"
        ) from None
    if not table:
        raise DataError(f"{path} is empty: it has no header row")
    header = _header(path, table[0], dialect["delimiter"])
    for line, fields in zip(lines[1:], table[1:], strict=True):
        if len(fields) != len(header):
            raise DataError(
                f"{path} line {line}: {len(fields)} fields where the header has {len(header)}"
            )
        # A concatenated file repeats its header, and its byte order mark.
        if [cell.strip("\ufeff ") for cell in fields] == header:
            raise DataError(f"{path} line {line} repeats the header: remove it")
    columns = {name: [row[i] for row in table[1:]] for i, name in enumerate(header)}
    return Contents(columns, lines[1:])


def _header(path: Path, cells: list[str], delimiter: str) -> list[str]:
    """Return the column names; raises DataError for an empty or wrongly separated header."""
    names = [cell.strip("\ufeff ") for cell in cells]
    if not any(names):
        raise DataError(f"{path} line 1 is empty where the header goes: remove it")
    if len(names) == 1:
        others = [mark for mark in _DELIMITERS if mark != delimiter and mark in names[0]]
        if others:
            raise DataError(
                f"{path} line 1 has one field, {names[0][:_SHOWN]!r}, and looks separated by "
                f"{_DELIMITERS[others[0]]}s: {_DELIMITERS[delimiter]}s are read here, "
                f"{'.tsv files have tabs' if delimiter == ',' else '.csv files have commas'}"
            )
    check_names(path, names)
    return names


def check_names(path: Path, names: list[str]) -> None:
    """Raise DataError if two columns have the same name."""
    duplicate = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if duplicate is not None:
        raise DataError(f"{path} has two columns named '{duplicate}': rename or remove one")


def _read_csv(path: Path) -> Contents:
    return _read_separated(path, delimiter=",", strict=True)


def _read_tsv(path: Path) -> Contents:
    return _read_separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_json_lines(path: Path) -> Contents:
    return Contents(*from_json_lines(path, read_text(path)))


def _read_json(path: Path) -> Contents:
    return Contents(*from_json(path, read_text(path)))


def _read_conll(path: Path) -> Contents:
    return Contents(*read_sentences(path, read_text(path)), line_per_word=True)


def _read_lines(path: Path) -> Contents:
    numbered = [
        (number, line)
        for number, line in enumerate(split_lines(read_text(path)), start=1)
        if line.strip()
    ]
    return Contents({"text": [line for _, line in numbered]}, [number for number, _ in numbered])


def _read_parquet(path: Path) -> Contents:
    import pyarrow
    import pyarrow.parquet

    try:
        check_names(path, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path)
        rows: Rows = table.to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file ({error})") from None
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} holds a value that cannot be read ({error})") from None
    return Contents(rows, class_names=schema_names(table.schema.metadata))


READERS: dict[str, Callable[[Path], Contents]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".conll": _read_conll,
    ".txt": _read_lines,
}
