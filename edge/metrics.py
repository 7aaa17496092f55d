"""Metrics of predictions against targets; unless noted, both are arrays of n values."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Kind, first word, word after the last.
Entity = tuple[str, int, int]


def accuracy(predicted: Array, target: Array) -> float:
    """Share of equal entries."""
    return float(np.mean(predicted == target))


def micro_f1(predicted: Array, target: Array) -> float:
    """F1 over all (sample, label) decisions; arrays of shape (n, labels) holding 0 and 1."""
    true = float(np.sum((predicted == 1) & (target == 1)))
    wrong = float(np.sum(predicted != target))
    return 2 * true / (2 * true + wrong) if true or wrong else 1.0


def pearson(predicted: Array, target: Array) -> float:
    """Linear correlation; 0 when either side is constant."""
    a = predicted.astype(np.float64) - predicted.mean(dtype=np.float64)
    b = target.astype(np.float64) - target.mean(dtype=np.float64)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def spearman(predicted: Array, target: Array) -> float:
    """Linear correlation of ranks, ties sharing their mean rank."""
    return pearson(_ranks(predicted), _ranks(target))


def ndcg(scores: Array, gains: Array, at: int = 10) -> float:
    """Normalized discounted cumulative gain of the `at` rows with the highest scores.

    gains: relevance of each row, 0 or more, at least one above 0. Among equal scores the least
    relevant row ranks first, so that a model with constant scores gets no credit.
    Source: Jarvelin and Kekalainen 2002, "Cumulated Gain-Based Evaluation of IR Techniques", with
    the gain itself, as TREC's evaluation has it.
    """
    discounts = 1 / np.log2(np.arange(2, min(at, len(gains)) + 2))
    ranked = gains[np.lexsort((gains, -scores))][:at]
    best = np.sort(gains)[::-1][:at]
    return float(ranked @ discounts / (best @ discounts))


def reciprocal_rank(scores: Array, gains: Array) -> float:
    """Reciprocal rank of the first row with the highest gain; ties as in `ndcg`."""
    order = np.lexsort((gains, -scores))
    return 1 / (1 + int(np.argmax(gains[order] == gains.max())))


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def entities(tags: Sequence[str]) -> set[Entity]:
    """Named entities in the tags of a sentence, as the CoNLL-2003 evaluation counts them.

    Tjong Kim Sang and De Meulder, CoNLL 2003, with the rules of their `conlleval`, so that IOB1,
    IOB2, IOE and IOBES (or BILOU) all read. A tag without prefix continues one of its own kind.
    """
    spans = set()
    kind, start, ended = "", 0, True
    for position, tag in enumerate([*tags, "O"]):
        prefix, new = split_tag(tag)
        if kind and (new != kind or ended or prefix in ("B", "S", "U")):
            spans.add((kind, start, position))
            kind = ""
        if new and not kind:
            start = position
        kind, ended = new, prefix in ("E", "S", "L", "U")
    return spans


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix and kind of a tag, B and PER of "B-PER"; both empty for "O"."""
    prefix, dash, kind = tag.partition("-")
    if dash and prefix in ("B", "I", "E", "S", "L", "U"):
        return prefix, kind
    return ("", "") if tag == "O" else ("I", tag)


def entity_f1(
    predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]]
) -> tuple[float, float, float]:
    """F1, precision and recall of whole entities over sentences of tags."""
    predictions = {
        (row, *entity) for row, tags in enumerate(predicted) for entity in entities(tags)
    }
    references = {(row, *entity) for row, tags in enumerate(target) for entity in entities(tags)}
    right = len(predictions & references)
    precision = right / len(predictions) if predictions else 0.0
    recall = right / len(references) if references else 0.0
    total = len(predictions) + len(references)
    return (2 * right / total if total else 1.0), precision, recall


def plain_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: Rajpurkar et al. 2016, section 6.1.

    https://arxiv.org/abs/1606.05250
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def answer_scores(predicted: str, accepted: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words with the nearest of the accepted answers, both 0 to 1."""
    answer = plain_answer(predicted)
    references = [plain_answer(text) for text in accepted]
    return float(answer in references), max(
        _word_f1(answer.split(), other.split()) for other in references
    )


def _word_f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    return 2 * (Counter(words) & Counter(reference)).total() / (len(words) + len(reference))
