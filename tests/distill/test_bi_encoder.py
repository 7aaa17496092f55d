"""A cross-encoder teaches a student that embeds each text alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill import DistillConfig, distill
from distill.data.batches import BucketSampler, StepBatches
from distill.data.questions import in_questions
from distill.objectives import OBJECTIVES, Batch, Setting, Shape
from distill.recipe.config import Stage
from distill.signals.capture import Signals
from edge.data import Columns, Table
from edge.errors import ConfigError, DataError, EdgeError, UserError
from tests.distill.conftest import (
    BAD,
    GOOD,
    NEUTRAL,
    distil_tiny,
    make_config,
    make_tokenizer,
    write_tsv,
)

SHAPE = Shape(layers=2, width=8, architecture="bert", attention=(2, 8))
GENERATOR = torch.Generator().manual_seed(1)


def write_pairs(path: Path, questions: int, *, seed: int, candidates: int = 4) -> Path:
    """Every other passage of a question is relevant: one whose word of opinion is good."""
    choose, rows = random.Random(seed), []
    for number in range(questions):
        question = f"{NEUTRAL[number % 6]} {NEUTRAL[number // 6 % 6]} {choose.choice(NEUTRAL)}"
        for candidate in range(candidates):
            label = candidate % 2
            passage = [choose.choice(NEUTRAL), choose.choice((BAD, GOOD)[label])]
            choose.shuffle(passage)
            rows.append((question, " ".join(passage), label))
    return write_tsv(path, "query passage score", rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "train": write_pairs(folder / "train.tsv", 48, seed=1),
        "eval": write_pairs(folder / "eval.tsv", 24, seed=2),
    }


@pytest.fixture(scope="module")
def judge(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder that knows which passages are relevant."""
    folder = tmp_path_factory.mktemp("cross-encoder")
    shape = make_config("bert", ("score",), initializer_range=0.1, hidden_dropout_prob=0.0)
    shape.save_pretrained(folder / "shape")
    make_tokenizer().save_pretrained(folder / "shape")
    result = distill(
        DistillConfig(
            student=str(folder / "shape"),
            train=str(files["train"]),
            eval=str(files["eval"]),
            columns=Columns(text="query", text_pair="passage"),
            recipe="finetune",
            epochs=6,
            batch_size=8,
            learning_rate=5e-3,
            output=folder / "teacher",
        )
    )
    assert result.metric == "pearson" and result.value is not None and result.value > 0.9
    return folder / "teacher"


run = partial(distil_tiny, student="layers=2,init=random", recipe="bi-encoder", learning_rate=3e-3)


def metrics(folder: Path, data: Path) -> dict[str, float]:
    """Of a student as anybody would load it."""
    from edge.checkpoint import open_checkpoint
    from edge.reference import Reference

    checkpoint = open_checkpoint(folder)
    reference = Reference(checkpoint)
    table = checkpoint.task.read(data)
    examples = checkpoint.task.examples(table, reference.tokenizer, max_length=32)
    return examples.score(reference.infer(examples.encodings))


def test_a_student_learns_to_rank(judge: Path, files: dict[str, Path], tmp_path: Path) -> None:
    start = run(judge, files, tmp_path / "start", max_steps=1, learning_rate=1e-9)
    result = run(judge, files, tmp_path / "student", epochs=6)
    assert result.metric == "ndcg_at_10"
    assert result.teacher_value is not None and result.teacher_value > 0.95
    assert start.value is not None and result.value is not None
    assert result.value > 0.95 > start.value
    before, after = (metrics(tmp_path / name, files["eval"]) for name in ("start", "student"))
    assert after["spearman"] > 0.7 > before["spearman"] + 0.2
    assert after["ndcg_at_10"] == pytest.approx(result.value, abs=1e-6)
    assert after["mrr"] > before["mrr"]


def test_what_the_teacher_said_is_read_again(
    judge: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    values: dict[str, Any] = {"max_steps": 4, "student": "layers=2,embedding_dim=8"}
    live = run(judge, files, tmp_path / "live", **values)
    for name in ("filled", "again"):
        cached = run(judge, files, tmp_path / name, **values, teacher_cache=tmp_path / "cache")
        assert cached.value == live.value
    assert metrics(tmp_path / "again", files["eval"])["ndcg_at_10"] == pytest.approx(live.value)


def test_a_softmax_over_candidates_and_labels(
    judge: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nsummary: s\ntask: feature-extraction\nstages:\n"
        "  - terms:\n"
        "      - {match: margin, candidates: 4, loss: kl}\n"
        "      - {match: labels}\n"
    )
    result = run(judge, files, tmp_path / "student", recipe=str(recipe), epochs=4)
    assert result.value is not None and result.value > 0.9


# Terms


def random_tensor(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def margin(term: dict[str, Any], ours: Tensor, theirs: Tensor, spread: float = 1.0) -> float:
    """The term on a student's vectors and a cross-encoder's scores."""
    found = Stage.model_validate({"terms": [{"match": "margin", **term}]}).terms[0]
    setting = Setting(SHAPE, SHAPE, None, "feature-extraction", spreads={"teacher": spread})
    totals = {"samples": torch.tensor(float(len(ours)))}
    signals = Signals({"sentence_embedding": ours}), {"teacher": Signals({"logits": theirs})}
    batch = Batch(*signals, None, torch.ones(len(ours), 3), totals)
    return float(OBJECTIVES["margin"](found, setting)(batch))


def test_scores_of_vectors_against_scores_of_pairs() -> None:
    """Differences of cosines times `scale` against differences in units of the spread."""
    vectors, scores = random_tensor(8, 6), random_tensor(4, 1) * 3
    first, second = vectors[::2], vectors[1::2]
    cosines = F.cosine_similarity(first, second)
    dots = (first * second).sum(-1)
    for term, ours in (
        ({}, 5 * cosines),
        ({"scale": 2.0}, 2 * cosines),
        ({"similarity": "dot"}, dots),
    ):
        d = ours - scores[:, 0] / 3
        expected = float((d[0] - d[1]) ** 2 + (d[2] - d[3]) ** 2) / 2
        found = margin({**term, "candidates": 2}, vectors, scores, spread=3.0)
        assert found == pytest.approx(expected, rel=1e-4)
        expected = sum(float((d[i] - d[j]) ** 2) for i in range(4) for j in range(4)) / 12
        assert margin(term, vectors, scores, spread=3.0) == pytest.approx(expected, rel=1e-4)


def test_a_softmax_over_the_candidates_of_a_question() -> None:
    vectors, scores = random_tensor(8, 6), random_tensor(4, 1)
    cosines = 5 * F.cosine_similarity(vectors[::2], vectors[1::2]).double()
    p, q = (x.view(2, 2).softmax(-1) for x in (scores.double(), cosines))
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert margin({"candidates": 2, "loss": "kl"}, vectors, scores) == pytest.approx(expected, 1e-4)


def test_an_embedding_teacher_s_cosines_can_be_followed() -> None:
    ours, theirs = random_tensor(4, 6), random_tensor(4, 9)
    term = Stage.model_validate({"terms": [{"match": "margin", "scale": 1.0}]}).terms[0]
    setting = Setting(SHAPE, SHAPE, None, "feature-extraction")
    batch = Batch(
        Signals({"sentence_embedding": ours}),
        {"teacher": Signals({"sentence_embedding": theirs})},
        None,
        torch.ones(4, 3),
        {"samples": torch.tensor(4.0)},
    )
    d = F.cosine_similarity(ours[::2], ours[1::2]) - F.cosine_similarity(theirs[::2], theirs[1::2])
    found = OBJECTIVES["margin"](term, setting)(batch)
    assert float(found) == pytest.approx(float((d[0] - d[1]) ** 2), rel=1e-4)


# Measures


def test_an_order_is_measured_within_questions() -> None:
    from edge.tasks.feature_extraction import agreement

    scores, targets = np.array([0.9, 0.1, 0.2, 0.8, 0.3]), np.array([1.0, 0, 0, 1, 1])
    found = agreement(scores, targets, ["a", "a", "b", "b", "b"])
    assert list(found) == ["ndcg_at_10", "mrr", "spearman", "pearson"]
    assert found["ndcg_at_10"] == found["mrr"] == 1
    # Across questions nothing has to fit: the second's best is worse than the first's worst.
    low = agreement(np.array([3.0, 2, -1, 0, -2]), targets, ["a", "a", "b", "b", "b"])
    assert low["ndcg_at_10"] == pytest.approx((1 + (1 + 1 / 2) / (1 + 1 / np.log2(3))) / 2)
    # A question whose passages are all alike has no order; single ones are no questions.
    assert agreement(scores[:4], targets[:4], ["a", "a", "b", "b"])["mrr"] == 1
    assert "mrr" not in agreement(scores, targets, list("abcde"))
    assert "mrr" not in agreement(scores, targets, ["a"] * 5)


# Questions


def table(rows: list[tuple[str, str, Any]]) -> Table:
    questions, passages, targets = zip(*rows, strict=True)
    return Table("data.tsv", list(questions), list(passages), list(targets))


def test_candidates_of_a_question_follow_each_other() -> None:
    rows = [(q, f"{q}{i}", i) for i in range(3) for q in ("a", "b")]
    found = in_questions(table(rows), 2, negatives=False, seed=0)
    assert found.texts == ["a"] * 4 + ["b"] * 4
    assert found.pairs == ["a0", "a1", "a2", "a0", "b0", "b1", "b2", "b0"]
    assert found.targets == [0, 1, 2, 0] * 2


def test_others_passages_make_up_for_few() -> None:
    rows = [("a", "a0", 1), ("b", "b0", 1), ("c", "c0", 1), ("a", "a1", 0)]
    found = in_questions(table(rows), 3, negatives=True, seed=0)
    assert found.texts == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert found.pairs is not None and found.targets is not None
    own = {"a": {"a0", "a1"}, "b": {"b0"}, "c": {"c0"}}
    for start in (0, 3, 6):
        question, passages = found.texts[start], found.pairs[start : start + 3]
        assert len(set(passages)) == 3 and own[question] <= set(passages)
        for passage, target in zip(passages, found.targets[start : start + 3], strict=True):
            assert (target is None) == (passage not in own[question])
    assert in_questions(table(rows), 3, negatives=True, seed=0) == found
    with pytest.raises(DataError, match="has 4 passages, too few for 4 that a question does not"):
        in_questions(table(rows), 6, negatives=True, seed=0)


def test_a_question_stays_whole() -> None:
    """In every batch, and in every process's part of it."""
    lengths = np.arange(40)
    for parts in (1, 3):
        order = BucketSampler(lengths, 12, seed=0, block=4)
        assert len(order) == 40
        rows = []
        for part in range(parts):
            for batch in StepBatches(order, 12, parts=parts, part=part):
                assert len(batch) % 4 == 0
                for start in range(0, len(batch), 4):
                    assert batch[start] % 4 == 0
                    assert batch[start : start + 4] == list(range(batch[start], batch[start] + 4))
                rows += batch
        assert sorted(rows) == list(range(40))


# Mistakes


def test_one_candidate(judge: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "few.tsv", 4, seed=1, candidates=1)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nsummary: s\ntask: feature-extraction\n"
        "stages: [{terms: [{match: margin, candidates: 2}]}]\n"
    )
    with pytest.raises(DataError, match="has 1 candidate where 2 are compared: give it more"):
        run(judge, {"train": data, "eval": data}, tmp_path / "s", recipe=str(recipe))


def test_one_text_in_each_row(judge: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("fine film\nsad plot\n")
    files = {"train": tmp_path / "plain.txt"}
    with pytest.raises(DataError, match="one text in each row, and a cross-encoder reads two"):
        run(judge, {**files, "eval": files["train"]}, tmp_path / "s", eval=None)


def test_a_teacher_that_is_no_cross_encoder(
    make_checkpoint: Callable[..., Path], files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has 2 labels: embeddings follow an embedding model, or"):
        run(make_checkpoint(), files, tmp_path / "s")
    tagger = make_checkpoint(auto="AutoModelForQuestionAnswering")
    with pytest.raises(ConfigError, match="does question-answering: embeddings follow an"):
        run(tagger, files, tmp_path / "s")


def test_terms_that_compare_text_by_text(
    judge: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="teacher is a cross-encoder, which reads two texts as"):
        run(judge, files, tmp_path / "s", recipe="embedding")


def test_several_cross_encoders(judge: Path, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several cross-encoders cannot teach at once"):
        run(judge, files, tmp_path / "s", teacher=(str(judge), str(judge)))


def test_a_teacher_that_says_the_same_of_all(
    make_checkpoint: Callable[..., Path], files: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    dumb = make_checkpoint(labels=("score",))
    model = AutoModelForSequenceClassification.from_pretrained(dumb)
    model.classifier.weight.data.zero_()
    model.save_pretrained(dumb)
    with pytest.raises(UserError, match="scores every pair of .* alike, so there is nothing to"):
        run(dumb, files, tmp_path / "s")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"terms": [{"match": "margin", "negatives": True}]}, "negatives fill up the candidates"),
        ({"terms": [{"match": "margin", "loss": "kl"}]}, "loss: kl is over the candidates of a"),
        (
            {"terms": [{"match": "margin", "similarity": "dot", "scale": 2}]},
            "scale belongs to similarity: cosine",
        ),
        (
            {"terms": [{"match": "margin", "candidates": c} for c in (2, 4)]},
            "compares candidates in several ways",
        ),
        (
            {
                "terms": [{"match": "margin", "candidates": 2}],
                "augment": [{"method": "rules"}],
            },
            "has candidates and augment: new texts belong to no question",
        ),
    ],
)
def test_stages_that_cannot_be(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        Stage.build(stage, where="recipe")
    assert "\n" not in str(found.value)


def test_vocabularies_that_differ(judge: Path, files: dict[str, Path], tmp_path: Path) -> None:
    import tokenizers
    from transformers import AutoModel, PreTrainedTokenizerFast

    other = tmp_path / "other"
    AutoModel.from_config(make_config("bert")).save_pretrained(other)
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "film": 4}
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(other)
    with pytest.raises(EdgeError, match="vocabular") as found:
        run(judge, files, tmp_path / "s", student=str(other))
    assert "\n" not in str(found.value)
