"""Every task's metric, held against answers that are known: no model runs here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from edge.checkpoint import load_tokenizer, open_checkpoint
from edge.data import Table
from edge.errors import DataError
from edge.evaluate import score
from edge.tasks import TASKS, Outputs, get_task
from edge.tasks.question_answering import best_span
from edge.tokenization import Encoding, Tokenizer

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.fixture(scope="module")
def tokenizer(bert_checkpoint: Path) -> Tokenizer:
    checkpoint = open_checkpoint(bert_checkpoint)
    return Tokenizer.of(load_tokenizer(checkpoint), folder=checkpoint.path)


def sentences(words: list[list[str]], tags: list[Any], **changes: Any) -> Table:
    return Table("data", [" ".join(w) for w in words], None, tags, words=words, **changes)


def one_hot(index: int, size: int) -> np.ndarray[Any, Any]:
    return np.eye(size, dtype=np.float32)[index]


# Token classification


def tagged(
    encodings: Iterable[Encoding], texts: list[list[str]], tags: dict[str, str]
) -> Iterator[Outputs]:
    """The tag of each word on its first token, nonsense on every other."""
    for encoding in encodings:
        rows, before = [], None
        assert encoding.words is not None
        for position, word in enumerate(encoding.words):
            first = word is not None and word != before
            name = tags[texts[0][word]] if first and word is not None else "I-PER"
            rows.append(one_hot(LABELS.index(name), len(LABELS)))
            before = encoding.words[position]
        yield {"logits": np.stack(rows)}


def test_words_are_judged_by_their_first_token(tokenizer: Tokenizer) -> None:
    words = [["xylo", "was", "not", "a", "phone", "of", "quartz"]]
    gold = ["B-PER", "O", "O", "B-LOC", "I-LOC", "O", "B-PER"]
    answers = dict(zip(words[0], gold, strict=True))
    task = get_task("token-classification", labels=LABELS)
    table = sentences(words, [gold])
    # 7 words of 20 tokens; at 8 tokens they run in several pieces.
    for length in (64, 12, 8):
        examples = task.examples(table, tokenizer, max_length=length)
        assert all(len(encoding) <= length for encoding in examples.encodings)
        found = examples.score(tagged(examples.encodings, words, answers))
        assert found == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 1.0}, length
    answers["quartz"] = "O"
    examples = task.examples(table, tokenizer, max_length=64)
    found = examples.score(tagged(examples.encodings, words, answers))
    assert list(found) == ["f1", "precision", "recall", "accuracy"]
    assert list(found.values()) == pytest.approx([0.8, 1.0, 2 / 3, 6 / 7])


def test_a_word_without_tokens_counts_as_no_entity(tokenizer: Tokenizer) -> None:
    words = [["the", "\u200b", "film"]]
    task = get_task("token-classification", labels=LABELS)
    examples = task.examples(sentences(words, [["O", "B-PER", "O"]]), tokenizer, max_length=16)
    outputs = [{"logits": np.tile(one_hot(1, len(LABELS)), (len(examples.encodings[0]), 1))}]
    # "the" and "film" are taken for persons, the invisible word for none.
    found = examples.score(outputs)
    assert (found["accuracy"], found["precision"]) == (0.0, 0.0)


def test_tags_may_be_indices_or_in_another_scheme(tokenizer: Tokenizer) -> None:
    labels = ("O", "I-PER", "I-LOC")
    words = [["the", "film", "was"]]

    def f1(tags: list[Any], names: tuple[str, ...] | None = None) -> float:
        task = get_task("token-classification", labels=labels)
        examples = task.examples(
            sentences(words, [tags], target_names=names), tokenizer, max_length=16
        )
        logits = np.stack([one_hot(i, 3) for i in (0, 1, 1, 2, 0)])
        return examples.score([{"logits": logits}])["f1"]

    assert f1([1, 1, 2]) == 1.0
    assert f1(["B-PER", "I-PER", "B-LOC"]) == 1.0
    assert f1([0, 0, 1], ("I-PER", "I-LOC", "O")) == 1.0
    # As many classes under other names are not the model's in their order.
    with pytest.raises(DataError, match="row 1: tag 'I-person' is not one of the model's"):
        f1([1, 1, 2], ("nothing", "I-person", "I-place"))


def test_parts_of_speech_have_an_accuracy(tokenizer: Tokenizer) -> None:
    task = get_task("token-classification", labels=("DET", "NOUN"))
    table = sentences([["the", "film"]], [["DET", "NOUN"]])
    outputs = [{"logits": np.stack([one_hot(0, 2)] * 4)}]
    assert score(task, tokenizer, table, lambda _: outputs, max_length=16) == ("accuracy", 0.5)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([["O", "B-ORG"]], "row 1: tag 'B-ORG' is not one of the model's (O, B-PER, I-PER, "),
        ([[0, 7]], "row 1: tag '7' is not one of the model's"),
        ([["O"]], "row 1 has 2 tokens and 1 tags"),
        (["O O"], "row 1 has 'O O' for its tags"),
        ([["O", "B-"]], "row 1: tag 'B-' has no kind; "),
    ],
)
def test_tags_that_do_not_fit_are_refused(
    tokenizer: Tokenizer, tags: list[Any], message: str
) -> None:
    task = get_task("token-classification", labels=LABELS)
    with pytest.raises(DataError) as caught:
        task.examples(sentences([["the", "film"]], tags), tokenizer, max_length=16)
    assert message in str(caught.value)
    assert "token-classification needs columns tokens and tags" in str(caught.value)


def test_words_have_the_ids_of_transformers(bert_checkpoint: Path, tokenizer: Tokenizer) -> None:
    words = ["Film's", "[not]", "café", "\u200b", "a", "x" * 200]
    theirs = load_tokenizer(open_checkpoint(bert_checkpoint))(words, is_split_into_words=True)
    ours = tokenizer.encode_words([words])[0]
    assert ours.input_ids == theirs["input_ids"]
    assert ours.words == theirs.word_ids()


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_byte_level_words_are_those_of_a_text(tokenizer: Tokenizer, add_prefix_space: bool) -> None:
    import tokenizers

    bytes_ = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate(sorted(bytes_))}
    merges = [("f", "i"), ("Ġ", "fi"), ("Ġ", "a")]
    vocabulary.update({"".join(pair): len(vocabulary) + i for i, pair in enumerate(merges)})
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)]
    )
    own = Tokenizer(inner, tokenizer.info)
    found = own.encode_words([["fi", "fi", "a"]])[0]
    assert found.input_ids == own.encode(["fi fi a"], max_length=16)[0].input_ids
    assert found.words == [0, 1, 2]


# Question answering


def located(
    encodings: Iterable[Encoding], answers: dict[int, tuple[int, int]]
) -> Iterator[Outputs]:
    """High logits where the answer starts and ends, by the characters it has in its context."""
    for row, encoding in enumerate(encodings):
        assert encoding.parts is not None and encoding.offsets is not None
        first, last = answers[min(row, max(answers))]
        places = list(zip(encoding.parts, encoding.offsets, strict=True))
        start = [9.0 * (part == 1 and begin == first) for part, (begin, _) in places]
        end = [9.0 * (part == 1 and stop == last) for part, (_, stop) in places]
        yield {"start_logits": np.array(start), "end_logits": np.array(end)}


def questions(context: str, answers: Any) -> Table:
    return Table("data", ["who was bad?"], [context], [answers])


def test_the_answer_is_cut_from_the_context(tokenizer: Tokenizer) -> None:
    context = "The plot, Of  FILM xyz: was not good."
    start = context.index("FILM")
    task = get_task("question-answering")
    for answers in (
        {"text": ["a film XYZ"]},
        [{"text": "FILM xyz"}],
        "film xyz.",
        ["no", "Film xyz"],
    ):
        examples = task.examples(questions(context, answers), tokenizer, max_length=64)
        found = examples.score(located(examples.encodings, {0: (start, start + 8)}))
        assert found == {"f1": 1.0, "exact_match": 1.0}, answers
    examples = task.examples(questions(context, "film"), tokenizer, max_length=64)
    found = examples.score(located(examples.encodings, {0: (start, start + 8)}))
    assert list(found.items()) == [("f1", pytest.approx(2 / 3)), ("exact_match", 0.0)]


def test_a_long_context_runs_in_pieces(tokenizer: Tokenizer) -> None:
    context = "the plot of a film was not good and " * 6 + "zebra was great " + "the end " * 9
    start = context.index("zebra")
    table = questions(context, "zebra")
    examples = get_task("question-answering").examples(table, tokenizer, max_length=24)
    assert len(examples.encodings) > 5
    assert max(map(len, examples.encodings)) == 24
    found = examples.score(located(examples.encodings, {0: (start, start + 5)}))
    assert found == {"f1": 1.0, "exact_match": 1.0}


def test_a_span_is_never_in_the_question() -> None:
    # No token types, as RoBERTa: what is special and what is the question is known all the same.
    encoding = Encoding([0, 5, 2, 2, 6, 7, 2], parts=[None, 0, None, None, 1, 1, None])
    start = np.array([9, 8, 0, 0, 1, 2, 9.0])
    assert best_span(start, start, encoding) == (5, 5, 4.0)
    assert best_span(np.array([0, 0, 0, 0, 1, 2, 0.0]), start, encoding) == (5, 5, 4.0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": []}, "row 1 has no answer, which only SQuAD 2 allows"),
        (3, "row 1 has '3' for its answers"),
        ([{"answer_start": 3}], "row 1 has an answer that is not text"),
        ("{'text': ['film'], 'answer_start': [4]}", "row 1 has .*, a list written as text"),
        ('["film"]', "row 1 has .*, a list written as text"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    tokenizer: Tokenizer, answers: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        get_task("question-answering").examples(
            questions("the film", answers), tokenizer, max_length=16
        )


def test_rows_without_words_have_no_score(tokenizer: Tokenizer) -> None:
    task = get_task("token-classification", labels=LABELS)
    with pytest.raises(DataError, match="every row is empty; token-classification needs"):
        task.examples(sentences([[]], [[]]), tokenizer, max_length=16)


# Fill-mask


def test_the_same_tokens_are_always_masked(tokenizer: Tokenizer) -> None:
    texts = ["the film was good and the plot of the film was not bad", "", "a film", "good " * 60]
    task = get_task("fill-mask")
    table = Table("data", texts, None, None)
    whole = tokenizer.encode([text for text in texts if text], max_length=32)
    examples = task.examples(table, tokenizer, max_length=32)
    assert examples.encodings == task.examples(table, tokenizer, max_length=32).encodings
    mask = tokenizer.info.mask_token_id
    masked = [np.array(e.input_ids) == mask for e in examples.encodings]
    # 15% of 13, 2 and 30 tokens between [CLS] and [SEP], one at least.
    assert [int(flags.sum()) for flags in masked] == [2, 1, 4]
    for flags, encoding, original in zip(masked, examples.encodings, whole, strict=True):
        assert not flags[0] and not flags[-1]
        kept = np.where(flags, original.input_ids, encoding.input_ids)
        assert kept.tolist() == original.input_ids
    # Other rows beside it do not change what is masked in a row.
    alone = task.examples(table.head(1), tokenizer, max_length=32)
    assert alone.encodings == examples.encodings[:1]


def test_masked_tokens_are_scored_by_hand(tokenizer: Tokenizer) -> None:
    texts = ["the film was good and the plot of the film was not bad", "a film"]
    size = tokenizer.info.vocabulary_size
    task = get_task("fill-mask")
    examples = task.examples(Table("data", texts, None, None), tokenizer, max_length=32)
    whole = tokenizer.encode(texts, max_length=32)
    right = [{"logits": 50 * np.eye(size)[e.input_ids]} for e in whole]
    found = examples.score(right)
    assert found == {"masked_accuracy": 1.0, "log_likelihood": pytest.approx(0.0)}
    # The second text's only mask is missed: 2 of 3.
    right[1]["logits"] = np.zeros((4, size))
    found = examples.score(iter(right))
    assert found["masked_accuracy"] == pytest.approx(2 / 3)
    assert found["log_likelihood"] == pytest.approx(-np.log(size) / 3)


def test_a_file_of_empty_texts_has_nothing_to_mask(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="every text is empty; fill-mask needs a text in each row"):
        get_task("fill-mask").examples(Table("d", ["", " "], None, None), tokenizer, max_length=9)


# Feature extraction


def test_cosines_are_ranked_against_similarities(tokenizer: Tokenizer) -> None:
    source = np.random.default_rng(0)
    first, second = source.normal(size=(2, 12, 5)) * 1000
    similar = source.uniform(0, 5, 12).round(1)
    table = Table("data", ["a"] * 12, ["the"] * 12, [str(value) for value in similar])
    task = get_task("feature-extraction")
    examples = task.examples(table, tokenizer, max_length=8)
    assert [len(e) for e in examples.encodings] == [3] * 24
    vectors = [{"sentence_embedding": vector.astype(np.float32)} for vector in (*first, *second)]
    cosines = [1 - spatial(a, b) for a, b in zip(first, second, strict=True)]
    found = examples.score(vectors)
    assert list(found) == ["spearman", "pearson"]
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, similar)[0])
    assert found["pearson"] == pytest.approx(stats.pearsonr(cosines, similar)[0])
    with pytest.raises(DataError, match="no pairs with similarities; feature-extraction needs"):
        task.examples(Table("data", ["a"], None, [1.0]), tokenizer, max_length=8)


def spatial(a: Any, b: Any) -> float:
    from scipy.spatial.distance import cosine

    return float(cosine(a, b))


# Pieces of a text that is too long


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("length", [5, 8, 13, 31, 64])
def test_pieces_cover_a_text_and_fit(tokenizer: Tokenizer, pair: bool, length: int) -> None:
    text = "the plot of a film was not good and great " * 4
    question = ["who is the film"]
    whole = (
        tokenizer.encode_whole(question, [text])[0] if pair else tokenizer.encode_whole([text])[0]
    )
    pieces = whole.windows(length, length // 3)
    assert whole.parts is not None and whole.offsets is not None
    sliding = [o for part, o in zip(whole.parts, whole.offsets, strict=True) if part == int(pair)]
    covered: list[tuple[int, int]] = []
    for piece in pieces:
        assert piece.parts is not None and piece.offsets is not None
        assert len(piece) <= length
        assert piece.parts.count(None) == whole.parts.count(None)
        own = [o for part, o in zip(piece.parts, piece.offsets, strict=True) if part == int(pair)]
        start = sliding.index(own[0])
        assert own == sliding[start : start + len(own)]
        covered += own
    assert set(covered) == set(sliding)
    assert len(pieces[0]) == min(length, len(whole))
    assert whole.windows(len(whole), 3) == [whole]


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"fill-mask"}))
def test_a_table_without_targets_has_no_score(tokenizer: Tokenizer, name: str) -> None:
    task = get_task(name, labels=LABELS)
    table = Table("data", ["a film"], ["the plot"], None, words=[["a", "film"]])
    with pytest.raises(DataError, match=f"data: there are no .*; {name} needs"):
        task.examples(table, tokenizer, max_length=16)
