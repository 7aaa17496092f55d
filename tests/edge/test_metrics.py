"""Metrics against values worked out by hand or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edge import metrics


def test_accuracy_and_micro_f1_by_hand() -> None:
    assert metrics.accuracy(np.array([1, 0, 2, 2]), np.array([1, 1, 2, 0])) == 0.5
    predicted = np.array([[1, 0, 1], [0, 1, 0]])
    target = np.array([[1, 1, 0], [0, 1, 0]])
    # 2 right, 1 missed, 1 too many: precision 2/3, recall 2/3.
    assert metrics.micro_f1(predicted, target) == pytest.approx(2 / 3)


def test_correlations_equal_scipy() -> None:
    source = np.random.default_rng(0)
    a = source.normal(size=50).round(1)
    b = (a + source.normal(size=50)).round(1)
    assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert metrics.pearson(np.ones(5), b[:5]) == 0.0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", {("PER", 1, 3)}),
        # IOB1: B- only parts neighbours of one kind.
        ("I-PER I-PER B-PER O I-LOC", {("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5)}),
        ("B-PER B-PER I-LOC", {("PER", 0, 1), ("PER", 1, 2), ("LOC", 2, 3)}),
        ("B-PER E-PER S-PER I-PER", {("PER", 0, 2), ("PER", 2, 3), ("PER", 3, 4)}),
        ("U-LOC B-LOC L-LOC", {("LOC", 0, 1), ("LOC", 1, 3)}),
        ("PER PER O LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-MISC-2 I-MISC-2", {("MISC-2", 0, 2)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_entities_by_hand(tags: str, expected: set[metrics.Entity]) -> None:
    assert metrics.entities(tags.split()) == expected


def test_entity_f1_by_hand() -> None:
    target = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    # An entity that starts a word early is wrong as a whole.
    assert metrics.entity_f1(predicted, target) == (0.5, 0.5, 0.5)
    # One right, one too many, one missed of two: precision 1/2, recall 1/2.
    assert metrics.entity_f1([["B-A", "O", "B-B"]], [["B-A", "B-B", "O"]]) == (0.5, 0.5, 0.5)
    f1, precision, recall = metrics.entity_f1([["B-A", "B-A"]], [["B-A", "O"]])
    assert (f1, precision, recall) == pytest.approx((2 / 3, 0.5, 1.0))
    assert metrics.entity_f1([["O"]], [["B-A"]]) == (0.0, 0.0, 0.0)
    # The same span in another sentence is not the same entity.
    assert metrics.entity_f1([["B-A"], ["O"]], [["O"], ["B-A"]])[0] == 0.0


@pytest.mark.parametrize(
    ("predicted", "accepted", "exact", "f1"),
    [
        ("The Denver Broncos!", ["denver broncos"], 1.0, 1.0),
        ("in the city of Paris", ["Paris"], 0.0, 0.4),
        ("in the city of Paris", ["London", "city of Paris"], 0.0, 6 / 7),
        ("Rome", ["Paris"], 0.0, 0.0),
        ("", ["Paris"], 0.0, 0.0),
        ("well-known", ["wellknown"], 1.0, 1.0),
        ("a a b", ["b b"], 0.0, 2 / 3),
        ("another thing", ["other thing"], 0.0, 0.5),
    ],
)
def test_answers_are_scored_as_squad_does(
    predicted: str, accepted: list[str], exact: float, f1: float
) -> None:
    assert metrics.answer_scores(predicted, accepted) == pytest.approx((exact, f1))


def test_the_gain_of_an_order() -> None:
    """By hand: 3 at rank 1, 1 at rank 2, 2 at rank 3; the best order is 3, 2, 1."""
    scores, gains = np.array([0.1, 0.9, 0.5]), np.array([2.0, 3.0, 1.0])
    best = 3 + 2 / np.log2(3) + 1 / 2
    assert metrics.ndcg(scores, gains) == pytest.approx((3 + 1 / np.log2(3) + 2 / 2) / best)
    assert metrics.ndcg(scores, gains, at=1) == 1
    assert metrics.ndcg(-scores, gains, at=1) == pytest.approx(2 / 3)
    # Beyond rank 10 nothing counts.
    last = np.eye(12)[0]
    assert metrics.ndcg(-last, last) == 0 and metrics.ndcg(last, last) == 1


def test_the_rank_of_the_best() -> None:
    scores, gains = np.array([0.1, 0.9, 0.5, 0.2]), np.array([0.0, 1.0, 2.0, 2.0])
    assert metrics.reciprocal_rank(scores, gains) == 1 / 2
    # Saying the same of all earns nothing.
    assert metrics.reciprocal_rank(np.zeros(4), np.array([1.0, 0, 0, 0])) == 1 / 4
