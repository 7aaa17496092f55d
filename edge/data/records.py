"""JSON data files: lines, arrays of records, and SQuAD's format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.data.lines import split_lines
from edge.errors import DataError

Rows = dict[str, list[Any]]
_Read = tuple[Rows, list[int | None] | None]
_FORMS = (
    "records are read from JSON lines, from an array of them, or from one under 'data' or 'rows'"
)


def from_json_lines(path: Path, text: str) -> _Read:
    """Read one record per line, all with the same keys."""
    rows: Rows = {}
    lines: list[int | None] = []
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            record = _parse(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is not valid JSON ({error})") from None
        if not isinstance(record, dict) or (rows and set(record) != set(rows)):
            raise DataError(f"{path} line {number}: every line must have the same keys")
        for name, value in record.items():
            rows.setdefault(name, []).append(value)
        lines.append(number)
    return rows, lines


def from_json(path: Path, text: str) -> _Read:
    """Read an array of records, SQuAD's format with one row per question, or JSON lines."""
    try:
        document = _parse(text)
    except ValueError as error:
        # JSON lines are not one document; the first line of a damaged document is not a record.
        first = next((line for line in split_lines(text) if line.strip()), "")
        if _is_record(first):
            return from_json_lines(path, text)
        raise DataError(f"{path} is not valid JSON ({error})") from None
    if isinstance(document, dict):
        records = document.get("data", document.get("rows"))
        if not isinstance(records, list):
            if any(isinstance(value, list | dict) for value in document.values()) and all(
                isinstance(value, list | dict) for value in document.values()
            ):
                raise DataError(f"{path} holds columns, not records: {_FORMS}")
            return from_json_lines(path, json.dumps(document))
        if any(isinstance(record, dict) and "paragraphs" in record for record in records):
            return _from_squad(path, records), None
    else:
        records = document
    return _from_records(path, records), None


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("too many brackets within brackets") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the key '{duplicate}' is there twice")
    return record


def _is_record(line: str) -> bool:
    try:
        return isinstance(_parse(line), dict)
    except ValueError as error:
        # `from_json_lines` reports a duplicate key with its line.
        return "there twice" in str(error) and line.strip().endswith("}")


def _from_records(path: Path, records: Any) -> Rows:
    if not isinstance(records, list):
        raise DataError(f"{path} holds {type(records).__name__}, no records: {_FORMS}")
    rows: Rows = {}
    for number, record in enumerate(records, start=1):
        # The data set viewer of the hub wraps each record.
        if isinstance(record, dict) and isinstance(record.get("row"), dict):
            record = record["row"]
        if not isinstance(record, dict):
            raise DataError(f"{path} row {number} is {str(record)[:40]!r}, no record: {_FORMS}")
        if rows and set(record) != set(rows):
            raise DataError(f"{path} row {number}: every record must have the same keys")
        for name, value in record.items():
            rows.setdefault(name, []).append(value)
    return rows


def _from_squad(path: Path, articles: Iterable[Any]) -> Rows:
    rows: Rows = {"id": [], "question": [], "context": [], "answers": []}
    try:
        for paragraph in (part for article in articles for part in article["paragraphs"]):
            for question in paragraph["qas"]:
                row = {**question, "context": paragraph["context"]}
                for name, column in rows.items():
                    column.append(row[name])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} has 'data' but is not SQuAD's JSON: article, paragraph or question without "
            f"{error}"
        ) from None
    return rows
