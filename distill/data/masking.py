"""Plain text to learn from: some tokens are masked, others in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distill.data.batches import Samples
from distill.data.views import Changing, Random
from distill.losses.distributions import IGNORED
from distill.recipe.tokens import Masking
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer

# Of the chosen tokens these become the mask, the last tenth any token, the others stay.
# Source: Devlin et al. 2019, "BERT", 3.1.
_MASKED, _KEPT = 0.8, 0.9


def masked_samples(
    encodings: Sequence[Encoding],
    tokenizer: Tokenizer,
    masking: Masking,
    *,
    seed: int,
    vocabulary: int | None = None,
) -> Samples:
    """Rows whose targets are their own masked tokens, -100 elsewhere.

    Every row needs a token that is not special, the tokenizer a mask token.
    vocabulary: how many tokens there are, the tokenizer's by default.
    """
    info = tokenizer.info
    assert info.mask_token_id is not None
    size = vocabulary or info.vocabulary_size
    masked = MaskedEncodings(encodings, info.mask_token_id, size, masking, seed=seed)
    return Samples(masked, _MaskedTokens(masked), tokenizer)


class MaskedEncodings(Changing):
    """Encodings some of whose tokens are masked; `labels` gives which they were.

    mask: the id of the mask token; vocabulary: how many tokens there are.
    """

    def __init__(
        self,
        source: Sequence[Encoding],
        mask: int,
        vocabulary: int,
        masking: Masking,
        *,
        seed: int,
    ) -> None:
        super().__init__(source, seed=seed)
        self._mask, self._vocabulary, self._share = mask, vocabulary, masking.share
        counts = np.zeros(vocabulary, np.int64)
        for encoding in source:
            np.add.at(counts, encoding.input_ids, 1)
        self._weights = np.maximum(counts, 1) ** -masking.rare

    def draw(self, row: int, random: Random) -> Encoding:
        encoding = self.source[row]
        ids, chosen = self._chosen(encoding, random)
        fate = random.random(len(chosen))
        other = random.integers(self._vocabulary, size=len(chosen))
        ids[chosen] = np.where(
            fate < _MASKED, self._mask, np.where(fate < _KEPT, ids[chosen], other)
        )
        return replace(encoding, input_ids=ids.tolist())

    def labels(self, row: int) -> Array:
        """The masked tokens of a row in this epoch, -100 elsewhere, one for each token."""
        ids, chosen = self._chosen(self.source[row], self.random(row))
        labels = np.full(len(ids), IGNORED, np.int64)
        labels[chosen] = ids[chosen]
        return labels

    def _chosen(self, encoding: Encoding, random: Random) -> tuple[Array, Array]:
        """The tokens of a row, and the positions of those to mask."""
        ids = np.asarray(encoding.input_ids)
        real = np.flatnonzero(~np.asarray(encoding.special, bool))
        weights = self._weights[ids[real]]
        count = max(1, round(self._share * len(real)))
        return ids, random.choice(real, count, replace=False, p=weights / weights.sum())


class _MaskedTokens(Sequence[Array]):
    """The targets that go with masked encodings, in the same epoch as they are."""

    def __init__(self, encodings: MaskedEncodings) -> None:
        self._encodings = encodings

    def __len__(self) -> int:
        return len(self._encodings)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._encodings.labels(index)
