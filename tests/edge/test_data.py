"""Data files as users have them, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.data import Columns, read_table
from edge.errors import DataError
from edge.tasks import get_task


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"open quote\t1\nsays "hi"\t0\n')
    table = read_table(path)
    assert table.texts == ['"open quote', 'says "hi"']
    assert table.targets == ["1", "0"]


def test_csv_has_quoting(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"a, b ""c""",1\n')
    assert read_table(path).texts == ['a, b "c"']


def test_json_lines_parquet_and_datasets_agree(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"sentence1": "a", "sentence2": "b", "score": 2.5},
        {"sentence1": "é", "sentence2": "漢", "score": 0.0},
    ]
    lines = write(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(str(tmp_path / "saved"))
    tables = [read_table(source) for source in (lines, tmp_path / "a.parquet", tmp_path / "saved")]
    for table in tables:
        assert (table.texts, table.pairs, table.targets) == (["a", "é"], ["b", "漢"], [2.5, 0.0])


def test_a_datasets_folder_is_read_by_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "train.csv", "text,label\na,0\n")
    write(folder, "test.csv", "text,label\nb,1\n")
    assert read_table(f"{folder}:test").texts == ["b"]
    with pytest.raises(DataError, match="has several splits: name one"):
        read_table(folder)
    with pytest.raises(DataError, match="no split 'tset': choose from train, test"):
        read_table(f"{folder}:tset")


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "review\tstars\nfine\t1\n")
    table = read_table(path, columns=Columns(text="review", label="stars"))
    assert (table.texts, table.targets) == (["fine"], ["1"])


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "", {}, "is empty: it has no header row"),
        ("a.tsv", "text\tlabel\n", {}, "is empty: it has no rows"),
        ("a.jsonl", "", {}, "is empty: it has no rows"),
        (
            "a.tsv",
            "txt\tlabel\na\t1\n",
            {},
            "has no column 'text or sentence1': name it with --text-column; it has txt, label",
        ),
        (
            "a.tsv",
            "review\tlabel\na\t1\n",
            {"text": "reviews"},
            "has no column 'reviews': did you mean 'review'?",
        ),
        (
            "a.tsv",
            "text\tstars\na\t1\n",
            {},
            "has no column 'label or score': name it with --label-column",
        ),
        ("a.tsv", "text\tlabel\na\t1\nb\n", {}, "line 3: 1 fields where the header has 2"),
        ("a.jsonl", '{"text": "a", "label": 1}\nnot json\n', {}, "line 2 is not valid JSON"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b"}\n',
            {},
            "line 2: every line must have the same keys",
        ),
        ("a.jsonl", '{"text": 3, "label": 1}\n', {}, "column 'text' must hold text, row 1 has 3"),
        ("a.xlsx", "PK", {}, "unknown kind of data file '.xlsx'"),
        ("a.parquet", "not parquet", {}, "is not a Parquet file"),
    ],
)
def test_bad_files_get_one_clear_line(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_table(path, columns=Columns(**columns))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"text\tlabel\n\xff\xfe\t1\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_table(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data file .*none\.tsv does not exist: check the path"):
        read_table(tmp_path / "none.tsv")


def test_labels_are_indices_or_names(tmp_path: Path) -> None:
    task = get_task("text-classification", labels=("bad", "good"))
    path = write(tmp_path, "a.tsv", "text\tlabel\na\tgood\nb\t0\n")
    assert task.targets(read_table(path)).tolist() == [1, 0]
    path = write(tmp_path, "b.tsv", "text\tlabel\na\tgood\nb\tugly\n")
    with pytest.raises(
        DataError,
        match=r"row 2: label 'ugly' is not one of the checkpoint's 2 labels \(bad, good\)",
    ):
        task.targets(read_table(path))
    path = write(tmp_path, "c.tsv", "text\tlabel\na\t2\n")
    with pytest.raises(DataError, match="row 1: label '2' is not one of"):
        task.targets(read_table(path))


def test_regression_targets_are_finite_numbers(tmp_path: Path) -> None:
    task = get_task("text-classification", labels=("score",))
    path = write(tmp_path, "a.tsv", "text\tscore\na\t2.5\n")
    assert task.targets(read_table(path)).tolist() == [2.5]
    for bad in ("high", "nan"):
        path = write(tmp_path, "b.tsv", f"text\tscore\na\t{bad}\n")
        with pytest.raises(DataError, match="regression target"):
            task.targets(read_table(path))


def test_label_sets_are_lists_or_comma_separated(tmp_path: Path) -> None:
    task = get_task(
        "text-classification", labels=("a", "b", "c"), problem_type="multi_label_classification"
    )
    path = write(
        tmp_path, "a.jsonl", '{"text": "x", "labels": ["a", "c"]}\n{"text": "y", "labels": "b"}\n'
    )
    assert task.targets(read_table(path)).tolist() == [[1, 0, 1], [0, 1, 0]]
