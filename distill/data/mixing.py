"""Texts whose words are read at random in one of two vocabularies, others in every epoch.

Source: Zhao et al. 2019, "Extremely Small BERT Models from Mixed-Vocabulary Training", 3, stage I.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.views import Changing, Random
from edge.data import Table
from edge.tokenization import Encoding, Tokenizer

# What tells these draws from others of the same seed, epoch and row.
_STREAM = 1
# A word of a row: its part, its place there.
Word = tuple[int, int]


@dataclass(frozen=True)
class Mixer:
    """Reads texts in words of two vocabularies, split into words alike.

    own: the student's; other: its teacher's, whose tokens are numbered after the student's.
    share: the probability with which a word is read in the student's tokens.
    """

    own: Tokenizer
    other: Tokenizer
    share: float
    seed: int

    @property
    def size(self) -> int:
        """The tokens of both vocabularies together."""
        return self.own.info.vocabulary_size + self.other.info.vocabulary_size

    def read(self, table: Table, max_length: int) -> MixedEncodings:
        """The texts or pairs of each row, cut to `max_length` tokens, the longer part first."""
        whole = self.own.encode_whole(table.texts, table.pairs)
        return self.mix(table, whole, range(len(whole)), max_length)

    def mix(
        self, table: Table, encodings: Sequence[Encoding], rows: Sequence[int], max_length: int
    ) -> MixedEncodings:
        """Encodings in the student's tokens, whole or pieces of `rows`, as mixed ones."""
        start = self.own.info.vocabulary_size
        theirs = [
            _words(encoding, start)
            for encoding in self.other.encode_whole(table.texts, table.pairs)
        ]
        ours = [_words(encoding) for encoding in self.own.encode_whole(table.texts, table.pairs)]
        return MixedEncodings(
            encodings,
            [
                # A word that a piece cuts stays as it is.
                {
                    word: ids
                    for word, ids in theirs[row].items()
                    if own.get(word) == ours[row].get(word)
                }
                for row, own in zip(rows, map(_words, encodings), strict=True)
            ],
            max_length,
            share=self.share,
            seed=self.seed,
        )


class MixedEncodings(Changing):
    """Encodings some of whose words are replaced by `others`, what their row has for each."""

    def __init__(
        self,
        encodings: Sequence[Encoding],
        others: Sequence[dict[Word, list[int]]],
        max_length: int,
        *,
        share: float,
        seed: int,
    ) -> None:
        lengths = np.minimum([len(encoding) for encoding in encodings], max_length)
        super().__init__(encodings, seed=seed, stream=(_STREAM,), lengths=lengths)
        self._others, self._max_length, self._share = others, max_length, share

    def draw(self, row: int, random: Random) -> Encoding:
        encoding, others = self.source[row], self._others[row]
        kinds = encoding.token_type_ids or [0] * len(encoding)
        pieces: list[_Piece] = []
        for word, positions in _runs(encoding):
            ids = [encoding.input_ids[i] for i in positions]
            kind = kinds[positions[0]]
            if word is None:
                pieces += [_Piece(ids[0], kind, None)]
                continue
            # Drawn for every word, so that one that has no choice changes nothing for the next.
            if random.random() >= self._share:
                ids = others.get(word, ids)
            pieces += [_Piece(token, kind, word[0]) for token in ids]
        return _encoding(_cut(pieces, self._max_length))


@dataclass(frozen=True)
class _Piece:
    """A token, its type, and the part of the row it belongs to; None for a special one."""

    token: int
    kind: int
    part: int | None


def _runs(encoding: Encoding) -> Iterator[tuple[Word | None, list[int]]]:
    """Each word with its positions, and each special token alone, in the text's order."""
    for part, number, positions in encoding.runs():
        if part is None or number is None:
            yield from ((None, [position]) for position in positions)
        else:
            yield (part, number), positions


def _words(encoding: Encoding, start: int = 0) -> dict[Word, list[int]]:
    """The tokens of each word, numbered from `start`."""
    ids = encoding.input_ids
    return {
        word: [start + ids[i] for i in positions]
        for word, positions in _runs(encoding)
        if word is not None
    }


def _cut(pieces: list[_Piece], length: int) -> list[_Piece]:
    """At most `length` of them: of two parts the longer one gives, and both once they are alike."""
    counts = Counter(piece.part for piece in pieces)
    room = length - counts.pop(None, 0)
    if counts.total() <= room:
        return pieces
    *shorter, longest = sorted(counts, key=lambda part: (counts[part], part))
    left = {part: min(counts[part], room // 2) for part in shorter}
    left[longest] = room - sum(left.values())
    kept = []
    for piece in pieces:
        if piece.part is not None:
            left[piece.part] -= 1
        if piece.part is None or left[piece.part] >= 0:
            kept.append(piece)
    return kept


def _encoding(pieces: list[_Piece]) -> Encoding:
    return Encoding(
        [piece.token for piece in pieces],
        [piece.kind for piece in pieces],
        special=[piece.part is None for piece in pieces],
        parts=[piece.part for piece in pieces],
    )
