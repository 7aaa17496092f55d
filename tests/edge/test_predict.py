"""What a person reads: answers in long contexts, similarities, and what does not fit a task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from edge.reference import Reference
from edge.tasks import Outputs, get_task
from edge.tokenization import Encoding

LENGTH = 32
QUESTION = "who is not great"
CONTEXT = " ".join(["the plot of a film was good"] * 40)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Reference:  # type: ignore[no-untyped-def]
    folder: Path = tmp_path_factory.mktemp("predict") / "checkpoint"
    tiny_checkpoint(folder, "bert", task="question-answering")
    return Reference(open_checkpoint(folder))


def spotlight(encodings: Iterable[Encoding], start: int, end: int) -> list[Outputs]:
    """Logits that are high at the tokens of a context's characters, and slightly so before."""
    outputs = []
    for encoding in encodings:
        assert encoding.offsets is not None and encoding.parts is not None
        logits = {"start_logits": np.zeros(len(encoding)), "end_logits": np.zeros(len(encoding))}
        for i, (part, offsets) in enumerate(zip(encoding.parts, encoding.offsets, strict=True)):
            if part == 1:
                logits["start_logits"][i] = 9.0 if offsets[0] == start else 0.1 * (offsets[0] < 9)
                logits["end_logits"][i] = 9.0 if offsets[1] == end else 0.1 * (offsets[0] < 9)
        outputs.append(logits)
    return outputs


def test_an_answer_far_behind_the_length_limit_is_seen(reference: Reference) -> None:
    start = CONTEXT.rindex("film")
    queries = reference.task.queries([QUESTION], [CONTEXT], reference.tokenizer, max_length=LENGTH)
    assert len(queries.encodings) > 5
    assert max(map(len, queries.encodings)) <= LENGTH
    (answer,) = queries.answers(spotlight(queries.encodings, start, start + 4))
    assert (answer["start"], answer["end"], answer["answer"]) == (start, start + 4, "film")


@pytest.mark.parametrize("reads_pairs", [True, False])
def test_single_texts_and_pairs_are_told_apart(reference: Reference, reads_pairs: bool) -> None:
    task = get_task("text-classification", labels=("bad", "good"))
    one: tuple[list[str], None] = (["a film"], None)
    two = (["a film"], ["the plot"])
    for texts, pairs in (one, two):
        assert len(task.queries(texts, pairs, reference.tokenizer, max_length=8).encodings) == 1
    task.pairs = reads_pairs
    right, wrong = (two, one) if reads_pairs else (one, two)
    assert len(task.queries(*right, reference.tokenizer, max_length=8).encodings) == 1
    with pytest.raises(
        ConfigError, match=r"--text-pair" if reads_pairs else "one text, not a pair"
    ):
        task.queries(*wrong, reference.tokenizer, max_length=8)


def test_several_questions_keep_their_own_contexts(reference: Reference) -> None:
    contexts = ["the film", CONTEXT, ""]
    queries = reference.task.queries(
        [QUESTION] * 3, contexts, reference.tokenizer, max_length=LENGTH
    )
    found = queries.answers(reference.infer(queries.encodings))
    for answer, context in zip(found, contexts, strict=True):
        assert answer["answer"] == context[answer["start"] : answer["end"]]
        assert bool(answer["answer"]) == bool(context)


def test_a_question_needs_a_context(reference: Reference) -> None:
    with pytest.raises(ConfigError, match="looks for answers in a context"):
        reference.task.queries([QUESTION], None, reference.tokenizer, max_length=LENGTH)


def test_embeddings_come_with_similarities(reference: Reference) -> None:
    task = get_task("feature-extraction", labels=None, problem_type=None)

    def answers(texts: list[str], pairs: list[str] | None, vectors: list[list[float]]):  # type: ignore[no-untyped-def]
        queries = task.queries(texts, pairs, reference.tokenizer, max_length=LENGTH)
        assert len(queries.encodings) == len(vectors)
        return queries.answers([{"sentence_embedding": np.asarray(v)} for v in vectors])

    (alone,) = answers(["film"], None, [[3.0, 4.0]])
    assert alone == {"embedding": [3.0, 4.0]}
    first, second = answers(["film", "plot"], None, [[3.0, 4.0], [4.0, 3.0]])
    assert first["similarity"] == pytest.approx(1.0)
    assert second["similarity"] == pytest.approx(24 / 25)
    (pair,) = answers(["film"], ["plot"], [[1.0, 0.0], [0.0, 2.0]])
    assert pair["similarity"] == pytest.approx(0.0)


def test_pairs_where_one_text_is_read(reference: Reference) -> None:
    task = get_task("fill-mask", labels=None, problem_type=None)
    with pytest.raises(ConfigError, match="takes one text, not a pair"):
        task.queries(["a"], ["b"], reference.tokenizer, max_length=LENGTH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the film", r"text 2 has no \[MASK\], so there is nothing to predict: write it where"),
        ("the " * 30 + "[MASK]", r"text 2 has no \[MASK\] among the first 16 tokens"),
    ],
)
def test_a_text_without_a_mask_is_refused(reference: Reference, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_task("fill-mask").queries(
            ["the [MASK]", text], None, reference.tokenizer, max_length=16
        )
