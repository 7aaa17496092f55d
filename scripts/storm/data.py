"""Mutate data files of every format, and check that no text silently gets another target.

    python scripts/storm/data.py --count 2000

A valid file of each task and format is damaged in one place: a cell, a byte, a line. Reading it has
to give every remaining text its target, or an error that names the row or line.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.data import Table
from edge.errors import DataError
from edge.tasks import Task, get_task

# The target of each text, or pair of texts.
Targets = dict[tuple[str, str | None], Any]
_TEXTS = ["the film was long", "a plot, of course", "who is it?", "zebras don't know", "so it ends"]
_MISSING = ["", " ", "nan", "NaN", "NA", "null", "None"]
_STRANGE = ["zzz", "-1", "7", "0.5", "inf", "1e400", "[", "\t", '"', "a\nb", "x" * 99]
_PLACE = re.compile(r"\b(line|row) \d+")
# Errors about a whole file, without a row.
_WHOLE = ("has no column", "is empty", "two columns named", "UTF-16", "is not valid JSON")
_WHOLE += ("not SQuAD", "may all be", "holds columns", "holds ", "but is not", "cannot be two of")
_WHOLE += ("is not a Parquet", "may be numbers of labels", "may be the model's")


@dataclass(frozen=True)
class Case:
    """A valid file. cells: (row, value) -> the content with that value as the row's target."""

    name: str
    file: str
    task: Task
    content: str
    cells: Callable[[int, Any], str] | None
    targets: list[Any]


@dataclass(frozen=True)
class Fault:
    """A mutation with a wrong result."""

    case: str
    mutation: str
    problem: str


def cases() -> list[Case]:
    """Return files of several tasks in every text format."""
    all_cases = []
    for task, targets in _tasks():
        if task.name == "token-classification":
            all_cases.append(_conll(task))
            continue
        for suffix, write in (("tsv", _tsv), ("csv", _csv), ("jsonl", _jsonl), ("json", _json)):
            if suffix in ("tsv", "csv"):
                texts = [",".join(t) if isinstance(t, list) else t for t in targets]
            else:
                texts = targets
            pairs = task.pairs is True

            def cells(
                row: int, value: Any, write: Any = write, texts: Any = texts, pairs: bool = pairs
            ) -> str:
                changed = [value if i == row else text for i, text in enumerate(texts)]
                content: str = write(_rows(changed, pairs=pairs))
                return content

            content = write(_rows(texts, pairs=pairs))
            name = f"{task.problem_type}-{suffix}"
            all_cases.append(Case(name, f"a.{suffix}", task, content, cells, targets))
    return all_cases


def _tasks() -> Iterator[tuple[Task, list[Any]]]:
    name = "text-classification"
    classes = ["good", "bad", "bad", "good", "neutral"]
    labels = ("bad", "neutral", "good")
    yield get_task(name, labels=labels, pairs=False), list(classes)
    yield get_task(name, labels=labels, pairs=True), list(classes)
    several = "multi_label_classification"
    yield (
        get_task(name, labels=("sad", "funny", "long"), problem_type=several, pairs=False),
        [["sad"], ["funny", "long"], ["long"], ["funny"], ["sad", "funny"]],
    )
    yield get_task(name, labels=("score",), pairs=False), [0.25, 1.5, 2.75, 3.5, 4.125]
    yield get_task("token-classification", labels=("O", "B-PER", "I-PER")), []


def _rows(targets: list[Any], *, pairs: bool) -> list[dict[str, Any]]:
    names = ("question", "sentence") if pairs else ("text",)
    return [
        {**dict(zip(names, (text, f"{text} yes"), strict=False)), "label": target}
        for text, target in zip(_TEXTS, targets, strict=True)
    ]


def _tsv(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def _csv(rows: list[dict[str, Any]]) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, indent=1)


def _conll(task: Task) -> Case:
    words = [text.split() for text in _TEXTS]
    tags = [["B-PER", "I-PER", *["O"] * (len(part) - 2)] for part in words]

    def cells(row: int, value: Any) -> str:
        sentences = []
        for number, (part, sentence_tags) in enumerate(zip(words, tags, strict=True)):
            changed = [
                value if number == row and i == 1 else tag for i, tag in enumerate(sentence_tags)
            ]
            lines = (f"{word}\t{tag}\n" for word, tag in zip(part, changed, strict=True))
            sentences.append("".join(lines))
        return "\n".join(sentences)

    return Case("tags-conll", "a.conll", task, cells(-1, None), cells, tags)


def read_targets(task: Task, table: Table) -> Targets:
    """Return the targets that a task reads from a table."""
    pairs = table.pairs or [None] * len(table)
    targets = task.targets(table)
    values = targets if isinstance(targets, list) else targets.tolist()
    keys = zip(table.texts, pairs, strict=True)
    return dict(zip(keys, values, strict=True))


def mutations(case: Case, count: int, source: random.Random) -> Iterator[tuple[str, bytes, bool]]:
    """Yield description and content of mutations; True: an error has to name a row or line."""
    yield from _cells(case)
    data = case.content.encode()
    lines = data.splitlines(keepends=True)
    for mark in (b"\xef\xbb\xbf", b"\n", b" "):
        yield f"{mark!r} in front", mark + data, False
    yield "CRLF", data.replace(b"\n", b"\r\n"), False
    yield "UTF-16", case.content.encode("utf-16"), False
    yield "twice", data + data, False
    # A line of an indented list may go, and leaves a shorter list.
    for number in range(0 if case.file.endswith(".json") else len(lines)):
        rest = [line for i, line in enumerate(lines) if i != number]
        yield f"without line {number + 1}", b"".join(rest), False
        twice = [*lines[: number + 1], *lines[number:]]
        yield f"line {number + 1} twice", b"".join(twice), False
    if case.task.problem_type == "regression":
        return  # another digit is another valid number
    for _ in range(count):
        place = source.randrange(len(data))
        # A truncated row has an empty cell, which means no label of several.
        kind = source.choice(
            ("flip", "delete", "insert", *(() if _is_multi_label(case) else ("cut",)))
        )
        if kind == "flip":
            changed = bytes([data[place] ^ (1 << source.randrange(8))])
        else:
            changed = (
                bytes([source.choice(b"\t\n\r ,;\"'\\[]{}:\x00\xff0")]) if kind == "insert" else b""
            )
        rest = b"" if kind == "cut" else data[place + (kind != "insert") :]
        yield f"{kind} at {place}", data[:place] + changed + rest, False


def _cells(case: Case) -> Iterator[tuple[str, bytes, bool]]:
    if case.cells is None:
        return
    for value in (*_MISSING, *_STRANGE, None, float("nan"), True, [], [0, 1], {"a": 1}, 3, 0):
        if case.task.problem_type == "regression" and _is_score(value):
            continue
        if _is_multi_label(case) and (value in ("", " ", "\t", []) or value is None):
            continue  # means no label
        for row in (0, 2, len(_TEXTS) - 1):
            content = case.cells(row, value)
            yield f"{value!r} for row {row + 1}", content.encode(), True


def _is_multi_label(case: Case) -> bool:
    return case.task.problem_type == "multi_label_classification"


def _is_score(value: Any) -> bool:
    try:
        return not isinstance(value, str) or abs(float(value)) < 1e300
    except ValueError:
        return False


def find_fault(case: Case, path: Path, data: bytes, *, located: bool, complete: bool) -> str | None:
    """Return the fault of reading a mutated file, or None.

    located: an error has to name a row or line. complete: no row may be lost.
    """
    original = original_targets(case, path, case.content.encode())
    path.write_bytes(data)
    try:
        actual = read_targets(case.task, case.task.read(path))
    except DataError as error:
        message = str(error)
        if "\n" in message:
            return f"an error of several lines: {message!r}"
        if located and not _PLACE.search(message) and not any(part in message for part in _WHOLE):
            return f"an error without a place: {message}"
        return None
    except Exception as error:
        return f"unexpected {type(error).__name__}: {error}"
    if complete and len(actual) < len(original):
        return f"{len(actual)} rows for {len(original)}"
    for key, value in actual.items():
        if key in original and value != original[key]:
            return f"{key} has {value} for {original[key]}"
    return None


_ORIGINAL_TARGETS: dict[str, Targets] = {}


def original_targets(case: Case, path: Path, data: bytes) -> Targets:
    """Return the targets of the file before mutation."""
    if case.name not in _ORIGINAL_TARGETS:
        path.write_bytes(data)
        _ORIGINAL_TARGETS[case.name] = read_targets(case.task, case.task.read(path))
        assert len(_ORIGINAL_TARGETS[case.name]) == len(_TEXTS)
    return _ORIGINAL_TARGETS[case.name]


def storm(folder: Path, count: int, seed: int) -> tuple[int, list[Fault]]:
    """Try mutations of all files; return their number and the faults."""
    tried, faults = 0, []
    for case in cases():
        source = random.Random(f"{seed} {case.name}")
        for mutation, data, located in mutations(case, count, source):
            tried += 1
            # An empty line that becomes a letter of the next token joins two sentences.
            same_rows = mutation.startswith(("flip", "insert")) and not case.file.endswith(".conll")
            complete = located or same_rows
            problem = find_fault(case, folder / case.file, data, located=located, complete=complete)
            if problem is not None:
                faults.append(Fault(case.name, mutation, problem))
    return tried, faults


def main() -> int:
    """Run the storm; return 1 if it finds a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="mutated bytes of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        tried, faults = storm(Path(folder), options.count, options.seed)
    for fault in faults:
        print(f"{fault.case}: {fault.mutation}: {fault.problem}")
    by_case = collections.Counter(fault.case for fault in faults)
    print(f"{tried:,} mutations of {len(cases())} files, {len(faults)} faults {dict(by_case)}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
