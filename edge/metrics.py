"""How well predictions fit targets. Where nothing else is said, both are arrays of n values."""

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
    """Discounted gain of the best-scored `at` rows, as a share of what the best order has.

    gains: how relevant each row is, 0 or more; some must be. Of equal scores the least relevant
    comes first, so that a model that says the same of all is not praised.
    Source: Jarvelin and Kekalainen 2002, "Cumulated Gain-Based Evaluation of IR Techniques", with
    the gain itself, as TREC's evaluation has it.
    """
    discounts = 1 / np.log2(np.arange(2, min(at, len(gains)) + 2))
    found = gains[np.lexsort((gains, -scores))][:at]
    best = np.sort(gains)[::-1][:at]
    return float(found @ discounts / (best @ discounts))


def reciprocal_rank(scores: Array, gains: Array) -> float:
    """1 / the rank of the first row of the highest gain; ties as in `ndcg`."""
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
    found = set()
    kind, start, ended = "", 0, True
    for position, tag in enumerate([*tags, "O"]):
        prefix, new = split_tag(tag)
        if kind and (new != kind or ended or prefix in ("B", "S", "U")):
            found.add((kind, start, position))
            kind = ""
        if new and not kind:
            start = position
        kind, ended = new, prefix in ("E", "S", "L", "U")
    return found


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
    ours = {(row, *entity) for row, tags in enumerate(predicted) for entity in entities(tags)}
    theirs = {(row, *entity) for row, tags in enumerate(target) for entity in entities(tags)}
    right = len(ours & theirs)
    precision = right / len(ours) if ours else 0.0
    recall = right / len(theirs) if theirs else 0.0
    total = len(ours) + len(theirs)
    return (2 * right / total if total else 1.0), precision, recall


def plain_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: Rajpurkar et al. 2016, section 6.1.

    https://arxiv.org/abs/1606.05250
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def answer_scores(predicted: str, accepted: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words with the nearest of the accepted answers, both 0 to 1."""
    ours = plain_answer(predicted)
    theirs = [plain_answer(answer) for answer in accepted]
    return float(ours in theirs), max(_word_f1(ours.split(), other.split()) for other in theirs)


def _word_f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
