"""Files of rows that were altered by hand, damaged, or put together from copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark import Report, Row, read_rows, read_several
from benchmark.ratios import with_ratios
from benchmark.report.render import render
from benchmark.row_files import dump_rows
from benchmark.schema import Model, Validity
from edge.errors import DataError
from tests.benchmark.row_factory import made_row


def _rows() -> list[Row]:
    baseline = made_row("bert-base", "checkpoint", ms=200, role="baseline", rounds=6, seed=1)
    return list(with_ratios([made_row(accuracy=0.9, rounds=6), baseline]))


def _altered(tmp_path: Path, place: str, text: str) -> Path:
    """A file whose first row has the JSON `text` at a dotted place."""
    first, *rest = dump_rows(_rows()).splitlines()
    values: Any = json.loads(first)
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    holder = values
    for part in parents:
        holder = holder[part]
    holder[last] = "@"
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(values).replace('"@"', text), *rest]) + "\n")
    return file


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-1", "1e308", "1e400", '"5"', "true", "[]"])
@pytest.mark.parametrize(
    "place",
    [
        "model.bytes",
        "runtime.threads",
        "inputs.batch",
        "latency_ms.p50",
        "latency_ms.mean",
        "latency_ms.ci95.0",
        "latency_ms.raw_ns.0",
        "latency_ms.blocks.0.1",
        "memory.peak_rss_mb",
        "accuracy.value",
        "ratio_to_baseline.value",
    ],
)
def test_a_figure_that_nothing_measured_is_refused(tmp_path: Path, place: str, text: str) -> None:
    with pytest.raises(DataError, match="line 1") as caught:
        read_rows(_altered(tmp_path, place, text))
    assert place.partition(".")[0] in str(caught.value)
    assert "measure again" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        ("latency_ms.p50", "5", "p50 is 5, by raw_ns it is "),
        ("latency_ms.max", "11", "max is 11, by raw_ns it is "),
        ("latency_ms.n", "1000", "n is 1000, raw_ns has 24"),
        ("latency_ms.raw_ns", "[]", "blocks are of 24 values, raw_ns has 0"),
        ("latency_ms.blocks.0.1", "5", "blocks are of 25 values, raw_ns has 24"),
        ("latency_ms.blocks.0.0", "3", "a round twice"),
        ("latency_ms.ci95", "[1, 2]", "ci95 is 1 to 2 and leaves out"),
        ("latency_ms", "null", "status is valid, and latency_ms is null"),
        ("ratio_to_baseline.value", "40", "ratio_to_baseline.ci95 is"),
        ("ratio_to_baseline.indistinguishable", "true", "contradicts its interval"),
        ("accuracy.value", "1.01", "a share is from 0 to 1"),
        ("validity.status", '"invalid"', "invalid with 0 reasons"),
        ("device.kind", '"emulated"', "valid for a emulated device"),
        ("started_utc", '"yesterday"', "started_utc is no time"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(
    tmp_path: Path, place: str, text: str, words: str
) -> None:
    with pytest.raises(DataError, match="line 1") as caught:
        read_rows(_altered(tmp_path, place, text))
    assert words in str(caught.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = _altered(tmp_path, "latency_ms.load", '1, "load": 2')
    with pytest.raises(DataError, match="line 1, is not a row"):
        read_rows(file)


def test_brackets_within_brackets_are_no_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("[" * 200_000)
    with pytest.raises(DataError, match="line 1, is not a row"):
        read_rows(file)


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """Twice the baseline would be none: which one to compare with would not be known."""
    rows = _rows()
    file = tmp_path / "rows.jsonl"
    file.write_text(dump_rows([*rows, *rows]))
    assert list(read_rows(file)) == rows


def test_two_rows_of_one_measurement_with_other_figures_are_refused(tmp_path: Path) -> None:
    rows = _rows()
    other = made_row(ms=5, accuracy=0.9, rounds=6)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(dump_rows(rows))
    second.write_text(dump_rows([other]))
    with pytest.raises(DataError, match="two rows of student/onnx-fp32 .* run-a with different"):
        read_several([first, second])
    # A report of several runs makes ratios anew, and edge run adds accuracies.
    second.write_text(dump_rows([row.model_copy(update={"accuracy": None}) for row in rows]))
    assert list(read_several([first, second])) == rows


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_name_with_a_separator_of_lines_is_read_again(tmp_path: Path, character: str) -> None:
    row = made_row(f"a{character}b", rounds=6)
    file = tmp_path / "rows.jsonl"
    file.write_text(dump_rows([row]), encoding="utf-8")
    assert read_rows(file) == (row,)


def test_a_name_that_is_no_utf8_is_written_as_an_escape(tmp_path: Path) -> None:
    """As a folder of such a name gives it to Python."""
    model = Model(id="b\udcff/onnx-fp32", format="onnx", precision="fp32", sha256=None, bytes=1)
    row = made_row(model=model, rounds=6)
    file = tmp_path / "rows.jsonl"
    file.write_text(render(Report.merged([row]))["rows.jsonl"], encoding="utf-8")
    assert read_rows(file)[0].model.id == r"b\udcff/onnx-fp32"


def test_an_invalid_row_says_why(tmp_path: Path) -> None:
    row = made_row(rounds=6, validity=Validity(status="invalid"))
    (tmp_path / "rows.jsonl").write_text(dump_rows([row]))
    with pytest.raises(DataError, match="invalid with 0 reasons"):
        read_rows(tmp_path)
