"""Classes of words that can stand for each other: of a lexicon, or learned from texts."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.augment.words import is_word, tokens
from edge.errors import DataError

Array = npt.NDArray[Any]
# Rarer words have too few neighbours to tell what they are like.
_FREQUENT = 5
_MOST_WORDS = 5000
# Neighbours that tell classes apart are the most frequent tokens: little words and punctuation.
_CONTEXTS = 150
_DIMENSIONS = 30
_LONGEST_SUFFIX = 4


class WordClasses:
    """Draws a word of the same class, as often as each occurs in the texts."""

    def __init__(self, counts: Counter[str], classes: dict[str, str]) -> None:
        self._classes = classes
        members: dict[str, list[str]] = {}
        for word in sorted(counts):
            if word in classes:
                members.setdefault(classes[word], []).append(word)
        self._members = members
        self._ends = {
            name: np.cumsum([counts[word] for word in words], dtype=np.int64)
            for name, words in members.items()
        }

    def draw(self, word: str, random: np.random.Generator) -> str:
        """A word of the class of `word`, maybe itself; itself when it has no class."""
        name = self._classes.get(word.lower())
        if name not in self._members:
            return word
        ends = self._ends[name]
        place = np.searchsorted(ends, random.integers(int(ends[-1])), side="right")
        return self._members[name][place]


def learn_classes(texts: Sequence[str], *, seed: int) -> WordClasses:
    """Classes of words that stand between the same neighbours; rare ones follow their endings.

    Left and right neighbours among the most frequent tokens, reduced by SVD and clustered by
    k-means. Source: Schuetze 1995, "Distributional Part-of-Speech Tagging", 3.1.
    """
    split = [tokens(text) for text in texts]
    counts = Counter(token for text in split for token in text)
    words = Counter({word: count for word, count in counts.items() if is_word(word)})
    ranked = sorted(words, key=lambda word: (-words[word], word))
    frequent = [word for word in ranked[:_MOST_WORDS] if words[word] >= _FREQUENT]
    if not frequent:
        return WordClasses(words, dict.fromkeys(words, "all"))
    contexts = sorted(counts, key=lambda token: (-counts[token], token))[:_CONTEXTS]
    points = _reduced(_neighbour_counts(split, frequent, contexts))
    found = _clusters(points, math.isqrt(len(frequent)), seed)
    classes = {word: str(number) for word, number in zip(frequent, found, strict=True)}
    return WordClasses(words, {**_by_suffix(ranked, classes, words), **classes})


def read_classes(path: Path, texts: Sequence[str]) -> WordClasses:
    """The classes of a lexicon, drawn as often as the words occur in `texts`.

    Raises DataError when a line is not a word, a tab and a class.
    """
    classes: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"lexicon {path} cannot be read ({error})") from None
    for number, line in enumerate(lines, start=1):
        word, tab, name = line.partition("\t")
        if not tab or not word or not name:
            raise DataError(f"lexicon {path} line {number} is not a word, a tab and its class")
        classes.setdefault(word.lower(), name)
    return WordClasses(Counter(token for text in texts for token in tokens(text)), classes)


def _neighbour_counts(split: list[list[str]], words: list[str], contexts: list[str]) -> Array:
    """(words, 2 * (contexts + 1)): how often each stands left and right; the last is an edge."""
    rows = {word: i for i, word in enumerate(words)}
    columns = {token: i for i, token in enumerate(contexts)}
    width = len(contexts) + 1
    found = np.zeros((len(words), 2 * width), np.float64)
    edge = len(contexts)
    for text in split:
        numbers = [columns.get(token) for token in text]
        around = [edge, *numbers, edge]
        for i, token in enumerate(text):
            row = rows.get(token)
            if row is None:
                continue
            for side, column in enumerate((around[i], around[i + 2])):
                if column is not None:
                    found[row, side * width + column] += 1
    return found


def _reduced(counts: Array) -> Array:
    """Unit vectors of few dimensions; square roots keep the commonest neighbours from ruling."""
    shares = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    left, sizes, _ = np.linalg.svd(shares, full_matrices=False)
    points = (left * sizes)[:, :_DIMENSIONS]
    unit: Array = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return unit


def _clusters(points: Array, count: int, seed: int) -> list[int]:
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        # A cluster may lose all its words: there is one class less then.
        warnings.simplefilter("ignore")
        random = np.random.default_rng(seed)
        _, labels = kmeans2(points, count, minit="++", rng=random)
    found: list[int] = labels.tolist()
    return found


def _by_suffix(words: list[str], known: dict[str, str], counts: Counter[str]) -> dict[str, str]:
    """Words that are not `known`, in the commonest class of the longest ending they share."""
    votes: dict[str, Counter[str]] = {}
    for word, name in known.items():
        for length in range(_LONGEST_SUFFIX + 1):
            if length < len(word):
                votes.setdefault(word[len(word) - length :], Counter())[name] += counts[word]
    best = {ending: max(sorted(found), key=found.__getitem__) for ending, found in votes.items()}
    found = {}
    for word in words:
        if word not in known:
            endings = (word[len(word) - n :] for n in range(_LONGEST_SUFFIX, -1, -1))
            found[word] = next((best[ending] for ending in endings if ending in best), "others")
    return found
