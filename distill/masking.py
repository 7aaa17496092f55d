"""Plain text to learn from: some tokens are hidden, others in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distill.batches import Row, Samples
from distill.losses import IGNORED
from distill.words import Masking
from edge.tokenization import Encoding, Tokenizer

# Of the chosen tokens these become the mask, the last tenth any token, the others stay.
# Source: Devlin et al. 2019, "BERT", 3.1.
_MASKED, _KEPT = 0.8, 0.9


class MaskedSamples(Samples):
    """Rows whose targets are their own hidden tokens, -100 elsewhere.

    What is hidden follows from seed, epoch and row alone, so a run that is continued sees what
    it would have seen. Every row needs a token that is not special, the tokenizer a mask token.
    vocabulary: how many tokens there are, the tokenizer's by default.
    """

    def __init__(
        self,
        encodings: Sequence[Encoding],
        tokenizer: Tokenizer,
        masking: Masking,
        *,
        seed: int,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(encodings, [], tokenizer)
        info = tokenizer.info
        assert info.mask_token_id is not None
        self._mask, self._vocabulary = info.mask_token_id, vocabulary or info.vocabulary_size
        self._share, self._seed, self._epoch = masking.share, seed, 0
        counts = np.zeros(self._vocabulary, np.int64)
        for encoding in encodings:
            np.add.at(counts, encoding.input_ids, 1)
        self._weights = np.maximum(counts, 1) ** -masking.rare

    def set_epoch(self, epoch: int) -> None:
        """Other tokens are hidden from here on."""
        super().set_epoch(epoch)
        self._epoch = epoch

    def __getitem__(self, index: int) -> Row:
        encoding = self.encodings[index]
        random = np.random.default_rng((self._seed, self._epoch, index))
        ids = np.asarray(encoding.input_ids)
        real = np.flatnonzero(~np.asarray(encoding.special, bool))
        weights = self._weights[ids[real]]
        count = max(1, round(self._share * len(real)))
        chosen = random.choice(real, count, replace=False, p=weights / weights.sum())
        labels = np.full(len(ids), IGNORED, np.int64)
        labels[chosen] = ids[chosen]
        fate = random.random(count)
        other = random.integers(self._vocabulary, size=count)
        ids[chosen] = np.where(
            fate < _MASKED, self._mask, np.where(fate < _KEPT, ids[chosen], other)
        )
        return index, replace(encoding, input_ids=ids.tolist()), labels
