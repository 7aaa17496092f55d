"""Data files as users have them, good and bad."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.data import Columns, read_table
from edge.errors import DataError
from edge.tasks import TASKS, get_task
from edge.tasks.summary import say_understood

CARD = "---\nconfigs:\n- config_name: default\n  data_files: t*.csv\n---\n"


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


@pytest.mark.parametrize("card", ["", CARD])
def test_a_folder_is_read_by_its_content_whatever_the_time_of_its_files(
    tmp_path: Path, card: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "README.md", card)
    for text in ("before", "after"):
        file = write(folder, "train.csv", f"text,label\n{text},0\n")
        os.utime(file, (1e9, 1e9))
        assert read_table(folder).texts == [text]


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
    path = write(tmp_path, "a.tsv", "text\tlabel\na\tgood\nb\tbad\n")
    assert task.targets(read_table(path)).tolist() == [1, 0]
    path = write(tmp_path, "n.tsv", "text\tlabel\na\t1\nb\t0\n")
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


def test_squad_s_json_gives_a_row_a_question(tmp_path: Path) -> None:
    answer = {"answer_start": 0, "text": "Ada"}
    asked = [{"id": name, "question": f"{name}?", "answers": [answer]} for name in ("q1", "q2")]
    document = {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": "Ada wrote.", "qas": asked}] * 2}],
    }
    path = write(tmp_path, "a.json", json.dumps(document, indent=1))
    table = get_task("question-answering").read(path)
    assert table.texts == ["q1?", "q2?"] * 2
    assert table.pairs == ["Ada wrote."] * 4
    assert table.targets == [[answer]] * 4
    del asked[1]["answers"]
    with pytest.raises(DataError, match="not SQuAD's JSON: .* without 'answers'"):
        get_task("question-answering").read(write(tmp_path, "b.json", json.dumps(document)))


@pytest.mark.parametrize(
    "text",
    [
        "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER",
        "EU\tB-ORG\r\nrejects\tO\r\n\r\nPeter\tB-PER\r\n",
        "EU  B-ORG\nrejects  O\n \nPeter  B-PER\n",
    ],
)
def test_conll_columns_give_a_row_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(text.encode())
    table = get_task("token-classification", labels=("O",)).read(path)
    assert table.words == [["EU", "rejects"], ["Peter"]]
    assert table.targets == [["B-ORG", "O"], ["B-PER"]]
    assert table.texts == ["EU rejects", "Peter"]
    assert table.take([1]).words == [["Peter"]]


def test_a_conll_token_may_hold_a_space_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", "10\u00a0000 B-N\nkm\u2028 O\n")
    assert get_task("token-classification").read(path).words == [["10\u00a0000", "km\u2028"]]


def test_conll_lines_must_have_equal_columns(tmp_path: Path) -> None:
    task = get_task("token-classification")
    path = write(tmp_path, "a.conll", "EU NNP B-ORG\nrejects O\n")
    with pytest.raises(DataError, match="line 2: 2 columns where the lines above have 3"):
        task.read(path)
    with pytest.raises(DataError, match="line 1: 1 columns where a token and its tag go"):
        task.read(write(tmp_path, "b.conll", "EU\n"))


def test_text_lines_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one line\n\n  \nanother, with\ttab\n")
    assert get_task("fill-mask").read(path).texts == ["one line", "another, with\ttab"]
    assert read_table(path, targets=False).texts == ["one line", "another, with\ttab"]


def test_lists_of_words_and_tags_are_read_alike(tmp_path: Path) -> None:
    import datasets

    names = ["O", "B-PER"]
    rows = {"tokens": [["Ada", "wrote"], ["no"]], "ner_tags": [[1, 0], [0]]}
    feature = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    data = datasets.Dataset.from_dict(rows, features=feature)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(str(tmp_path / "saved"))
    lines = [json.dumps({"tokens": w, "ner_tags": t}) for w, t in zip(*rows.values(), strict=True)]
    write(tmp_path, "a.jsonl", "\n".join(lines))
    task = get_task("token-classification", labels=tuple(names))
    for name in ("a.parquet", "saved", "a.jsonl"):
        table = task.read(tmp_path / name)
        assert (table.words, table.targets) == (rows["tokens"], rows["ner_tags"]), name
        assert table.target_names == (None if name == "a.jsonl" else ("O", "B-PER"))


CLASSES = "text\tlabel\na film\tgood\n"
QUESTION = '{"question": "who?", "context": "Ada.", "answers": {"text": ["Ada"]}}\n'


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        (
            "text-classification",
            "a.jsonl",
            QUESTION,
            "has no column 'text or sentence1': name it with --text-column; it has question, "
            "context, answers; text-classification needs a text, or two, and a label in each row",
        ),
        (
            "text-classification",
            "a.txt",
            "one line\n",
            "has no column 'label or score': name it with --label-column; it has text; text-class",
        ),
        (
            "token-classification",
            "a.tsv",
            CLASSES,
            "has no column 'tokens or words': name it with --text-column; it has text, label; "
            "token-classification needs columns tokens and tags",
        ),
        (
            "token-classification",
            "a.tsv",
            "tokens\ttags\na film\tO O\n",
            "column 'tokens' must hold lists of words, row 1 has 'a film'",
        ),
        (
            "question-answering",
            "a.tsv",
            CLASSES,
            "has no column 'question': name it with --text-column; it has text, label; "
            "question-answering needs columns question, context and answers",
        ),
        (
            "question-answering",
            "a.tsv",
            "question\tanswers\nwho?\tAda\n",
            "has no column 'context': name it with --pair-column; it has question, answers",
        ),
        ("fill-mask", "a.conll", "EU B-ORG\n", "it has tokens, tags; fill-mask needs a text in"),
        (
            "feature-extraction",
            "a.tsv",
            CLASSES,
            "has no column 'sentence2 or text_pair': name it with --pair-column; it has text, "
            "label; feature-extraction needs two texts and their similarity",
        ),
    ],
)
def test_another_task_s_file_is_refused(
    tmp_path: Path, task: str, name: str, content: str, message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        get_task(task, labels=("O", "B-PER")).read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_without_targets_any_file_of_texts_will_do(tmp_path: Path, task: str) -> None:
    path = write(tmp_path, "a.tsv", "text\na film\n")
    assert get_task(task).read(path, targets=False).texts == ["a film"]


@pytest.mark.parametrize(
    ("task", "file", "rows"),
    [
        ("token-classification", "conll2003/dev.conll", 3250),
        ("question-answering", "squad/dev.json", 10570),
        ("feature-extraction", "stsb/dev.tsv", 1500),
        ("fill-mask", "wiki_text/dev.txt", 2067),
    ],
)
def test_real_files_are_read_whole(shared: Path, task: str, file: str, rows: int) -> None:
    path = shared / "data" / file
    if not path.is_file():
        pytest.skip(f"no real data here: {path} does not exist")
    table = get_task(task).read(path)
    assert len(table) == rows
    if table.words is not None:
        assert sum(map(len, table.words)) == 51362
        assert table.targets is not None
        assert {tag for tags in table.targets for tag in tags} == {
            "O",
            *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "ORG", "LOC", "MISC")),
        }


def test_a_file_in_a_folder_is_read_as_it_is_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    quotes = 'text\tlabel\n"good\t1\nNA\t0\nend"\t1\n'
    assert read_table(write(folder, "train.tsv", quotes)).texts == ['"good', "NA", 'end"']
    assert read_table(folder).texts == ['"good', "NA", 'end"']
    write(folder, "train.tsv", "text\tlabel\tlabel\na\t0\t1\n")
    with pytest.raises(DataError, match=r"train\.tsv has two columns named 'label'"):
        read_table(folder)
    write(folder, "train.tsv", "text;label\na;0\n")
    with pytest.raises(DataError, match="looks separated by semicolons"):
        read_table(folder)


def test_files_of_a_folder_agree(tmp_path: Path) -> None:
    import datasets

    def save(name: str, classes: list[str], column: str = "label") -> None:
        features = {"text": datasets.Value("string"), column: datasets.ClassLabel(names=classes)}
        rows = datasets.Dataset.from_dict(
            {"text": ["a", "b"], column: [0, 1]}, features=datasets.Features(features)
        )
        rows.to_parquet(tmp_path / name)

    save("train-0.parquet", ["bad", "good"])
    save("train-1.parquet", ["bad", "good"])
    table = read_table(tmp_path)
    assert (table.targets, table.target_names) == ([0, 1, 0, 1], ("bad", "good"))
    save("train-1.parquet", ["good", "bad"])
    with pytest.raises(DataError, match=r"train-1\.parquet names other classes, or in another"):
        read_table(tmp_path)
    save("train-1.parquet", ["bad", "good"], "stars")
    with pytest.raises(DataError, match="has the columns text, stars where train-0"):
        read_table(tmp_path)


@pytest.mark.parametrize("source", ["", " ", ":", ":train", "@", "@config"])
def test_a_source_without_a_name_is_refused(source: str) -> None:
    with pytest.raises(DataError, match="names no data: give a file"):
        read_table(source)


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tsv")
    with pytest.raises(DataError, match="is a pipe or device, and data is read more than once"):
        read_table(tmp_path / "a.tsv")


def test_a_folder_of_very_many_files_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.data.hub._MOST_FILES", 2)
    (tmp_path / ".hidden").mkdir()
    for name in ("a.tsv", ".hidden/b", ".hidden/c"):
        (tmp_path / name).write_text("text\tlabel\na\t1\n")
    with pytest.raises(DataError, match="is a folder of more than 2 files: name the data file"):
        read_table(tmp_path)


def test_files_that_no_split_has_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("test.tsv", "data.tsv", "notes.txt~"):
        (tmp_path / name).write_text('text\tlabel\n"a\t1\nb"\t0\n')
    table = read_table(tmp_path)
    assert (table.texts, table.unread_files) == (['"a', 'b"'], ("data.tsv",))
    task = get_task("text-classification", labels=("bad", "good"))
    say_understood(task, table, [], max_length=9)
    assert "data.tsv is not read, since other files there are named" in capsys.readouterr().err
    # Each split by its name is nothing to tell of.
    (tmp_path / "data.tsv").rename(tmp_path / "train.tsv")
    assert read_table(f"{tmp_path}:test").unread_files == ()


def test_a_licence_in_a_folder_leaves_tsv_without_quoting(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a\t1\nb"\t0\n')
    (tmp_path / "LICENSE").write_text("free")
    assert read_table(tmp_path).texts == ['"a', 'b"']
