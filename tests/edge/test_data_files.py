"""Forms of data files, and where damaged ones are damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from edge.data import TEXTS, Columns, read_table
from edge.errors import DataError
from edge.tasks import get_task

ROWS = [{"text": "a film", "label": 0}, {"text": "é\u2028b", "label": 1}]
TSV = "text\tlabel\na film\t0\né\u2028b\t1\n"
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", TSV),
        ("a.tsv", TSV.replace("\n", "\r\n")),
        ("a.tsv", "\ufeff" + TSV),
        ("a.csv", "text, label\na film,0\né\u2028b,1\n"),
        ("a.csv", 'text,label\n"a film","0"\n"é\u2028b",1'),
        ("a.jsonl", LINES),
        ("a.jsonl", LINES.replace("\n", "\r\n\n")),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", json.dumps({"rows": [{"row_idx": 0, "row": row} for row in ROWS]})),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_rows(
    tmp_path: Path, name: str, content: str, packed: bool
) -> None:
    data = content.encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    table = read_table(path)
    assert table.texts == ["a film", "é\u2028b"]
    assert [int(value) for value in table.targets or ()] == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text;label\na;1\n",
            "line 1 has one field, 'text;label', and looks separated by",
        ),
        ("a.csv", "text\tlabel\na\t1\n", "separated by tabs: commas are read here, .tsv files"),
        ("a.tsv", "text,label\na,1\n", "separated by commas: tabs are read here, .csv files have"),
        ("a.tsv", "text\ttext\na\tb\n", "has two columns named 'text': rename or remove one"),
        ("a.tsv", f"{TSV}{TSV}", "line 4 repeats the header: remove it"),
        ("a.tsv", f"{TSV}\ufeff{TSV}", "line 4 repeats the header"),
        ("a.tsv", "a good film\t1\na bad film\t0\n", "(is the header line missing?)"),
        ("a.tsv", "Text\tLabel\na\t1\n", "has no column 'text or sentence1': did you mean 'Text'?"),
        ("a.csv", 'text,label\na,1\n"b,0\nc,1\n', "line 3: quotes do not match"),
        ("a.csv", 'text,label\n"b" c,0\n', "line 2: quotes do not match"),
        ("a.csv", 'text,label\n"b\nc",0\nd\n', "line 4: 1 fields where the header has 2"),
        (
            "a.jsonl",
            '{"text": "a", "text": "b", "label": 1}\n',
            "line 1 is not valid JSON (the key",
        ),
        ("a.jsonl", json.dumps(ROWS) + "\n", "line 1: every line must have the same keys"),
        ("a.json", '[{"text": "a", "label": 1}, 3]', "row 2 is '3', no record: records are read"),
        ("a.json", '[{"text": "a", "label": 1}, {"text": "b"}]', "row 2: every record must have"),
        ("a.json", '{"text": ["a"], "label": [1]}', "holds columns, not records: records are read"),
        ("a.json", '[{"text": "a", "label": 1},', "is not valid JSON"),
        ("a.json", "3", "holds int, no records: records are read from JSON lines"),
        ("a.json", '[{"text": "a", "label": 1, "label": 2}]', "the key 'label' is there twice"),
        ("a.txt.zip", "", "unknown kind of data file '.txt.zip'"),
        ("a.tsv", "text\tlabel\na\x00b\t1\n", "line 2 holds a NUL character: remove it"),
        ("a.tsv", "\n\n\n", "line 1 is empty where the header goes: remove it"),
        ("a.tsv", "text\tlabel\n\t1\n \t0\n", "column 'text' is empty in every row"),
        ("a.json", "[" * 100_000, "is not valid JSON (too many brackets"),
        (
            "a.jsonl",
            '{"text": "a\\ud83d", "label": 1}\n',
            "must hold text, row 1 has 'a\\ud83d' (li",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_told_in_parquet_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["c"])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "label", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has two columns named 'label': rename or remove one"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TSV.encode("utf-16"), "looks like UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`"),
        (TSV.encode("utf-16-le"), "looks like UTF-16"),
        (
            b"text\tlabel\nfine\t1\ncaf\xe9\t1\n",
            r"line 3 cannot be read as UTF-8 text \(byte 0xe9\)",
        ),
    ],
)
def test_another_encoding_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    for data in (TSV.encode(), gzip.compress(TSV.encode())[:-9]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be unpacked"):
            read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "Ada\tB-PER\t\nwrote\tO\t\n",
            "line 1 has an empty tag: is there a tab too many at its end",
        ),
        ("Ada\tB-PER\nwrote\t\n", "line 2 has an empty tag"),
        ("Ada\tB-PER\n\tO\n", "line 2 has an empty token"),
        ("Ada\tB-PER\nwrote O\n", "line 2: 1 columns where the lines above have 2"),
        ("Ada B-PER\nwrote\tO\n", "line 2: 1 columns where the lines above have 2"),
        ("Ada B-PER\n\nwrote\n", "line 3: 1 columns where the lines above have 2"),
    ],
)
def test_a_conll_line_has_a_token_and_a_tag(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        get_task("token-classification").read(path)


def test_a_tag_is_refused_with_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- O\n\nAda B-PER\n\nshe O\nis O\nAda B-PRE\n")
    task = get_task("token-classification", labels=("O", "B-PER"))
    with pytest.raises(DataError, match="line 7, row 2: tag 'B-PRE' is not one of the model's"):
        task.targets(task.read(path))


def texts(tmp_path: Path, header: str, columns: Columns | None = None, **options: Any) -> Any:
    names = header.split()
    path = tmp_path / "a.tsv"
    cells = [f"the {name} here" if name != "label" else "1" for name in names]
    path.write_text("\t".join(names) + "\n" + "\t".join(cells) + "\n")
    layout = get_task("text-classification").layout
    return read_table(path, columns=columns, layout=layout, **options)


@pytest.mark.parametrize(
    ("header", "read", "unread"),
    [
        ("question sentence label", ("question", "sentence"), ()),
        ("label premise hypothesis", ("premise", "hypothesis"), ()),
        ("question1 question2 label", ("question1", "question2"), ()),
        ("sentence1 sentence2 label", ("sentence1", "sentence2"), ()),
        ("text text_pair label", ("text", "text_pair"), ()),
        ("query passage label", ("query", "passage"), ()),
        ("text title label", ("text", None), ("title",)),
        ("sentence label", ("sentence", None), ()),
    ],
)
def test_names_that_belong_together_are_a_pair(
    tmp_path: Path, header: str, read: tuple[str, str | None], unread: tuple[str, ...]
) -> None:
    table = texts(tmp_path, header)
    assert (table.read[:2], table.unread) == (read, unread)
    assert table.texts == [f"the {read[0]} here"]
    assert table.pairs == (None if read[1] is None else [f"the {read[1]} here"])


def test_columns_that_may_all_be_the_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sentence1, sentence2, text may all be the text: name the"):
        texts(tmp_path, "text sentence1 sentence2 label")
    table = texts(tmp_path, "text sentence1 sentence2 label", Columns(text="text"))
    assert (table.read[0], table.pairs) == ("text", None)
    with pytest.raises(DataError, match="passage and document may both be the second text"):
        texts(tmp_path, "query passage document label", Columns(text="query"))
    with pytest.raises(DataError, match="the column 'text' cannot be two of text, second text"):
        texts(tmp_path, "text label", Columns(text_pair="text"))


def test_a_model_of_single_texts_reads_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has pairs of texts, 'question' and 'sentence', and the"):
        texts(tmp_path, "question sentence label", pairs=False)
    table = texts(tmp_path, "question sentence label", Columns(text="sentence"), pairs=False)
    assert (table.pairs, table.unread) == (None, ("question",))
    with pytest.raises(DataError, match="leave out --pair-column"):
        texts(tmp_path, "text other label", Columns(text_pair="other"), pairs=False)


def test_a_model_of_pairs_reads_no_single_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has one text in each row, and the model reads two"):
        texts(tmp_path, "text title label", pairs=True)
    table = texts(tmp_path, "text title label", Columns(text_pair="title"), pairs=True)
    assert table.pairs == ["the title here"]


def test_samples_tell_whether_a_model_reads_pairs(bert_checkpoint: Path, tmp_path: Path) -> None:
    from converters import ConvertConfig
    from converters.golden import read_samples
    from edge.checkpoint import load_tokenizer, open_checkpoint
    from edge.tokenization import Tokenizer

    path = tmp_path / "a.tsv"
    path.write_text("premise\thypothesis\tlabel\na film\tthe plot\t\n")
    checkpoint = open_checkpoint(bert_checkpoint)
    assert checkpoint.task.pairs is None
    config = ConvertConfig(source=str(bert_checkpoint), output=tmp_path / "b", samples=str(path))
    reader = Tokenizer.of(load_tokenizer(checkpoint), folder=checkpoint.path)
    found = read_samples(config, checkpoint.task, reader, max_length=16)
    assert found == [("a film", "the plot")]
    assert checkpoint.task.pairs is True
    path.write_text("text\tlabel\na film\tbad\n")
    with pytest.raises(DataError, match="has one text in each row, and the model reads two"):
        checkpoint.task.read(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize(
    ("name", "lines", "texts"),
    [
        ("a.conll", ["the O", "film B-X", "", "a O"], ["the film", "a"]),
        ("a.txt", ["the film", "a plot\u2028of it"], ["the film", "a plot\u2028of it"]),
        ("a.jsonl", ['{"text": "the film"}', '{"text": "a"}'], ["the film", "a"]),
        ("a.tsv", ["text", "the film", "a"], ["the film", "a"]),
    ],
)
def test_lines_end_in_every_usual_way(
    tmp_path: Path, name: str, lines: list[str], texts: list[str], end: str
) -> None:
    (tmp_path / name).write_bytes("".join(line + end for line in lines).encode())
    layout = get_task("token-classification").layout if name == "a.conll" else TEXTS
    assert read_table(tmp_path / name, layout=layout, targets=False).texts == texts


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(TSV.encode(), mtime=0), "gzip"),
        (b"PK\x03\x04\x00\x00", "zip"),
        (b"PAR1\x00\x00", "Parquet"),
        (b"BZh91AY", "bzip2"),
    ],
)
def test_what_is_no_text_is_told_by_its_form(tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "a.tsv").write_bytes(data)
    with pytest.raises(DataError, match=f"it is a {kind} file; unpack or rename it"):
        read_table(tmp_path / "a.tsv")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("# sent_id = 1\nthe O\nfilm B-X\n", 1),
        ("# sent_id = 1\n# text = the film\n1\tthe\t_\tO\n", 1),
        ("the\tO\n\n# a comment\na\tO\n", 3),
        ("the O\n\n# comment\na O\n", 3),
        ("-DOCSTART- O\n\n#\thttp://a.b\t[2009]\n1\tthe\tO\tO\n", 3),
    ],
)
def test_a_comment_is_no_token(tmp_path: Path, content: str, line: int) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(DataError, match=f"line {line} looks like a comment"):
        get_task("token-classification").read(tmp_path / "a.conll")


def test_a_token_may_be_a_hash(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("# O\n1 B-X\n\n#tag O\n\n# #\n\n#one RARE\na O\n")
    table = get_task("token-classification").read(tmp_path / "a.conll")
    assert table.words == [["#", "1"], ["#tag"], ["#"], ["#one", "a"]]


def test_the_numbers_of_tokens_are_no_tokens(tmp_path: Path) -> None:
    path, task = tmp_path / "a.conll", get_task("token-classification")
    path.write_text("1\tthe\tO\n2\tfilm\tB-X\n\n1\ta\tO\n")
    with pytest.raises(DataError, match="line 1: the first column numbers the tokens"):
        task.read(path)
    path.write_text("1\tx\tO\n2\ty\tB-X\n\n7\tz\tO\n")
    assert task.read(path).words == [["1", "2"], ["7"]]


@pytest.mark.parametrize("label", [[], {"_type": "ClassLabel", "names": "abc"}, 3])
def test_a_schema_of_another_shape_names_no_classes(tmp_path: Path, label: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["a", "b"], "label": [0, 1]})
    said = json.dumps({"info": {"features": {"label": label}}})
    table = table.replace_schema_metadata({b"huggingface": said.encode()})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").target_names is None


def test_a_damaged_value_is_refused(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["abcdefgh", "b"], "label": [0, 1]})
    parquet = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, parquet, compression="none", use_dictionary=False)
    datasets.Dataset.from_dict(table.to_pydict()).save_to_disk(str(tmp_path / "saved"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for file in (parquet, arrow):
        file.write_bytes(file.read_bytes().replace(b"abcdefgh", b"abc\xff\xfffgh"))
    for source in (parquet, tmp_path / "saved"):
        with pytest.raises(DataError, match="holds a value that cannot be read"):
            read_table(source)
