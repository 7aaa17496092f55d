"""Files of rows, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.contradictions import contradiction, same_measurement, unique_keys
from benchmark.keys import row_key
from benchmark.schema import SCHEMA_VERSION, Row
from edge.errors import ConfigError, DataError

ROWS_FILE = "rows.jsonl"
_REMEDY = "use the file as edge benchmark wrote it, or measure again"


def dump_rows(rows: Iterable[Row]) -> str:
    """Return the text of a file of rows."""
    return "".join(row.model_dump_json() + "\n" for row in rows)


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read the rows of a file, or of the report in a folder.

    Raises DataError if there are none, if they have another schema, or if figures of one row
    contradict each other.
    """
    file = path / ROWS_FILE if path.is_dir() else path
    try:
        # Not splitlines(): a text in JSON may hold separators of lines that are none in a file.
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{file} cannot be read: name a report folder or a rows.jsonl") from None
    rows = [_row(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"{file} holds no rows: was the benchmark interrupted at its start?")
    return _unique((row, file) for row in rows)


def read_any(path: Path) -> tuple[Row, ...]:
    """Read the rows of a file, as `read_rows`, or another program's, see `benchmark.importing`.

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
    """Read the rows of all files, in their order; a row in several files counts once.

    Raises DataError as `read_any` does.
    """
    return _unique((row, path) for path in paths for row in read_any(path))


def _unique(rows: Iterable[tuple[Row, Path]]) -> tuple[Row, ...]:
    """Drop repeated rows; raises DataError if two rows of one measurement have other figures."""
    first: dict[tuple[object, ...], tuple[Row, Path]] = {}
    for row, path in rows:
        first_row, where = first.setdefault(row_key(row), (row, path))
        if first_row is not row and not same_measurement(first_row, row):
            places = f"{where} and {path}" if where != path else str(path)
            raise DataError(
                f"{places} hold two rows of {row.model.id} in {row.runtime.name} from run "
                f"{row.run_id} with different figures, so one was altered: {_REMEDY}"
            )
    return tuple(row for row, _ in first.values())


def _row(file: Path, number: int, line: str) -> Row:
    try:
        values = json.loads(line, object_pairs_hook=unique_keys)
        version = values.get("schema_version")
    except (ValueError, AttributeError, RecursionError):
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
        row = Row.build_json(line, where=f"{file}, line {number}")
    except ConfigError as error:
        raise DataError(f"{error}: {_REMEDY}") from None
    wrong = contradiction(row)
    if wrong is not None:
        raise DataError(f"{file}, line {number}: {wrong}: {_REMEDY}")
    return row
