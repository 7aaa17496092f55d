"""The words a model has a token of its own for, and their neighbours in a vector space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.augment.words import is_word
from edge.errors import DataError
from edge.tokenization import describe

Array = npt.NDArray[Any]
# Vector files list frequent words first; neighbours beyond these are rarely words one would write.
_MOST_VECTORS = 200_000
# Words looked up at once: (words, vocabulary) similarities take 4 bytes each.
_LOOKUP = 512


class Vocabulary:
    """The tokens of a tokenizer that are whole words, whatever kind of tokenizer it is.

    A token is a whole word when that word, standing inside a text, becomes this very token.
    """

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        import tokenizers

        # A copy: the tokenizer's own may be set to cut and pad.
        self._inner = tokenizers.Tokenizer.from_str(describe(tokenizer, folder=folder)[0])
        ids = range(self._inner.get_vocab_size())
        texts = [text.strip() for text in self._inner.decode_batch([[i] for i in ids])]
        found = [(i, text) for i, text in zip(ids, texts, strict=True) if is_word(text)]
        pieces = self.pieces([text for _, text in found])
        whole = [pair for pair, own in zip(found, pieces, strict=True) if own == [pair[0]]]
        self.ids: Array = np.asarray([i for i, _ in whole], np.int64)
        self.words = [text for _, text in whole]

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """The tokens of each word where it stands inside a text."""
        batch = self._inner.encode_batch([f" {word}" for word in words], add_special_tokens=False)
        return [found.ids for found in batch]


class EmbeddingSpace:
    """A model's input embeddings; a word of several tokens is at their mean."""

    def __init__(self, vocabulary: Vocabulary, embeddings: Array) -> None:
        self._vocabulary = vocabulary
        self._embeddings = embeddings.astype(np.float32)
        self.words = vocabulary.words
        self.vectors: Array = self._embeddings[vocabulary.ids]

    def vector(self, words: Sequence[str]) -> list[Array | None]:
        pieces = self._vocabulary.pieces(words)
        return [self._embeddings[own].mean(0) if own else None for own in pieces]


class FileSpace:
    """The vectors of a text file; words it lacks have none."""

    def __init__(self, path: Path) -> None:
        self.words, self.vectors = _read_vectors(path)
        self._index = {word: i for i, word in reversed(list(enumerate(self.words)))}

    def vector(self, words: Sequence[str]) -> list[Array | None]:
        found = [self._index.get(word, self._index.get(word.lower())) for word in words]
        return [None if index is None else self.vectors[index] for index in found]


def neighbours(
    words: Iterable[str], space: EmbeddingSpace | FileSpace, count: int
) -> dict[str, list[str]]:
    """The `count` words of `space` nearest to each word by cosine, in alphabetical order.

    A word is not its own neighbour, in whatever case; one without a vector has none.
    """
    asked = sorted(set(words))
    known = [(w, v) for w, v in zip(asked, space.vector(asked), strict=True) if v is not None]
    found: dict[str, list[str]] = {word: [] for word in asked}
    units = _unit(space.vectors)
    # The word itself may be among the nearest, in two cases.
    most = min(count + 3, len(space.words))
    for start in range(0, len(known), _LOOKUP):
        part = known[start : start + _LOOKUP]
        similar = _unit(np.stack([vector for _, vector in part])) @ units.T
        near = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        for (word, _), row, columns in zip(part, similar, near, strict=True):
            ranked = columns[np.argsort(-row[columns], kind="stable")]
            others = (space.words[i] for i in ranked)
            kept = list(dict.fromkeys(o for o in others if o.casefold() != word.casefold()))
            found[word] = sorted(kept[:count])
    return found


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Array = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _read_vectors(path: Path) -> tuple[list[str], Array]:
    """A word and its numbers a line; a first line of two whole numbers is word2vec's header."""
    words: list[str] = []
    rows: list[Array] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1 and len(values) == 1 and word.isdigit():
                    continue
                row = np.asarray(values, np.float32)
                if not len(row) or (rows and len(row) != len(rows[0])):
                    raise ValueError(f"line {number} has {len(row)} numbers")
                if is_word(word):
                    words.append(word)
                    rows.append(row)
                if len(words) == _MOST_VECTORS:
                    break
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a text file of word vectors ({error})") from None
    if not words:
        raise DataError(f"{path} is not a text file of word vectors (it has no words)")
    return words, np.stack(rows)
