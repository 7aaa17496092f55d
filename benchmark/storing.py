"""Rows on disk: one line of JSON each; and those of several files together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmark.keys import row_key
from benchmark.schema import SCHEMA_VERSION, Row
from edge.errors import DataError

ROWS_FILE = "rows.jsonl"


def dump_rows(rows: Iterable[Row]) -> str:
    """The text of a file of rows."""
    return "".join(row.model_dump_json() + "\n" for row in rows)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a file, or of the report in a folder.

    Raises DataError when there are none, or when they have another schema.
    """
    file = path / ROWS_FILE if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{file} cannot be read: name a report folder or a rows.jsonl") from None
    rows = [_row(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"{file} holds no rows: was the benchmark interrupted at its start?")
    return tuple(rows)


def read_any(path: Path) -> tuple[Row, ...]:
    """As `read_rows`, and what other programs measured, see `benchmark.importing`.

    Raises DataError as `read_rows` does, and for a foreign file that is broken.
    """
    # Imported here, for reading rows must not need what other programs' files need.
    from benchmark.importing import KNOWN_FILES, import_rows

    file = path
    if path.is_dir():
        names = (ROWS_FILE, *KNOWN_FILES)
        file = next((path / name for name in names if (path / name).is_file()), path / ROWS_FILE)
    if file.name == ROWS_FILE or file.suffix == ".jsonl":
        return read_rows(file)
    try:
        rows = import_rows(file)
    except OSError:
        raise DataError(f"{file} cannot be read: name a report folder or a rows.jsonl") from None
    return read_rows(file) if rows is None else rows


def read_several(paths: Sequence[Path]) -> tuple[Row, ...]:
    """The rows of all files, in their order; a row that several hold counts once.

    Raises DataError as `read_any` does.
    """
    found: dict[tuple[object, ...], Row] = {}
    for path in paths:
        for row in read_any(path):
            found.setdefault(row_key(row), row)
    return tuple(found.values())


def _row(file: Path, number: int, line: str) -> Row:
    try:
        values = json.loads(line)
        version = values.get("schema_version")
    except (ValueError, AttributeError):
        raise DataError(
            f"{file}, line {number}, is not a row of a benchmark: name a report folder, a "
            "rows.jsonl, or a result file that docs/benchmark.md lists"
        ) from None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{file}, line {number}, has rows of schema {version or 'unknown'}, this program reads "
            f"{SCHEMA_VERSION}: measure again, or use the program that wrote them"
        )
    try:
        return Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}, line {number}: {where}: {first['msg']}") from None
