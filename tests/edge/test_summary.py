"""The line that says what was understood of a data file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint import load_tokenizer, open_checkpoint
from edge.data import Columns
from edge.tasks import get_task
from edge.tasks.summary import say_understood
from edge.tokenization import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(bert_checkpoint: Path) -> Tokenizer:
    checkpoint = open_checkpoint(bert_checkpoint)
    return Tokenizer.of(load_tokenizer(checkpoint), folder=checkpoint.path)


@pytest.fixture
def told(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """What is said of a file for a task, the file's name left out."""

    def tell(name: str, text: str, task: str, max_length: int = 8, **options: Any) -> list[str]:
        path = tmp_path / name
        path.write_text(text)
        columns = options.pop("columns", None)
        opened = get_task(task, **options)
        table = opened.read(path, columns=columns)
        encodings = opened.examples(table, tokenizer, max_length=max_length).encodings
        say_understood(opened, table, encodings, max_length=max_length)
        return capsys.readouterr().err.replace(f"{path}: ", "").splitlines()

    return tell


def test_classes_are_told_with_counts_and_cut_texts(told: Callable[..., list[str]]) -> None:
    rows = "text\tlabel\ttitle\nthe film\tbad\tthe plot was\n" + "a film " * 9 + "\tgood\tno no\n"
    assert told("a.tsv", rows, "text-classification", labels=("bad", "good")) == [
        "text-classification; 2 rows of text; label: class names, bad 1, good 1; "
        "1 cut at 8 tokens; 12 tokens",
        "warning: column 'title' is not read: name it with --pair-column if it is a second text",
    ]


def test_numbers_and_pairs_are_told_where_nothing_says_what_they_mean(
    told: Callable[..., list[str]],
) -> None:
    rows = "question\tsentence\tlabel\nwho\ta film\t1\n"
    line, *warnings = told("a.tsv", rows, "text-classification", labels=("bad", "good"))
    assert "1 row of pairs of question and sentence; label: class numbers, bad 0, good 1" in line
    assert "taken as positions among the model's labels, 0 = bad, 1 = good" in warnings[0]
    assert "nothing tells whether the model reads pairs" in warnings[1]
    single = Columns(text="sentence")
    told_again = told(
        "a.tsv", rows, "text-classification", labels=("bad", "good"), columns=single, pairs=False
    )
    assert "1 row of sentence" in told_again[0]


def test_questions_and_contexts_are_pairs_without_a_word(told: Callable[..., list[str]]) -> None:
    rows = '{"question": "who", "context": "a film", "answers": ["film"]}\n'
    (line,) = told("a.jsonl", rows, "question-answering")
    assert "1 row of pairs of question and context" in line


def test_scores_tags_and_pieces_are_told(told: Callable[..., list[str]]) -> None:
    scores = "sentence1\tsentence2\tscore\na\tfilm\t0.5\nthe\tplot\t5\n"
    assert told("a.tsv", scores, "feature-extraction") == [
        "feature-extraction; 2 rows of pairs of sentence1 and sentence2; score: scores from 0.5 "
        "to 5; none cut at 8 tokens; 12 tokens"
    ]
    tags = "".join(
        f"{word} O\n" for word in ("a", "film", "of", "the", "plot", "was", "not", "bad")
    )
    (line,) = told("a.conll", tags, "token-classification", labels=("O", "B-PER"))
    assert "tags: tags by name, O 8; in 2 pieces of up to 8 tokens" in line


def test_empty_texts_and_equal_scores_are_told(told: Callable[..., list[str]]) -> None:
    text = "text\tscore\nthe film\t1\n \t1.0\n"
    said = told("a.tsv", text, "text-classification", labels=("score",))
    assert "score: scores from 1 to 1; 1 with an empty text; " in said[0]
    warning = "warning: all scores are equal, so that no correlation with them can be measured"
    assert said[1:] == [warning]


@pytest.mark.parametrize(
    ("answers", "warning"),
    [
        ([{"text": "good", "answer_start": 9}, {"text": "film", "answer_start": 4}], None),
        ([{"text": "film"}], None),
        (["film"], None),
        ({"text": ["film"], "answer_start": [4]}, None),
        (["zebra"], "an answer that is not in its context"),
        *(
            ([{"text": "film", "answer_start": start}], "an answer that is not at its answer_start")
            for start in (3, 500, -1, "4")
        ),
    ],
)
def test_answers_that_contexts_do_not_bear_out_are_told(
    told: Callable[..., list[str]], answers: Any, warning: str | None
) -> None:
    row = {"question": "who is it", "context": "the film was good", "answers": answers}
    said = told("a.jsonl", json.dumps(row) + "\n", "question-answering", max_length=16)
    assert "answers: texts in the contexts" in said[0]
    assert len(said) == 1 + (warning is not None)
    assert warning is None or said[1].startswith(f"warning: the only row has {warning}")
