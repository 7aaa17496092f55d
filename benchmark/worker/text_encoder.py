"""Tokenization on a device, with a `tokenizer.json` alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.process.wire import Arrays


class TextEncoder:
    """Encoder of texts as model inputs; see `benchmark.devices.base.TextInputs`."""

    def __init__(
        self,
        tokenizer: str,
        *,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        lengths: Sequence[int],
        dynamic: bool,
        pad_id: int,
        names: Sequence[str],
    ) -> None:
        import tokenizers

        self._inner = tokenizers.Tokenizer.from_str(tokenizer)
        self._inner.no_padding()
        self._inner.enable_truncation(lengths[-1], strategy="longest_first")
        self._texts, self._pairs = texts, pairs
        self._lengths, self._dynamic = lengths, dynamic
        self._pad_id, self._names = pad_id, names

    def __len__(self) -> int:
        return len(self._texts)

    def feed(self, number: int) -> Arrays:
        """Return the inputs of one text, int32 of shape (1, length)."""
        pair = None if self._pairs is None else self._pairs[number]
        encoding = self._inner.encode(self._texts[number], pair)
        columns = {
            "input_ids": (encoding.ids, self._pad_id),
            "attention_mask": (encoding.attention_mask, 0),
            "token_type_ids": (encoding.type_ids, 0),
        }
        length = self._length(len(encoding.ids))
        feed = {}
        for name in self._names:
            values, padding = columns[name]
            feed[name] = np.full((1, length), padding, np.int32)
            feed[name][0, : len(values)] = values
        return feed

    def _length(self, tokens: int) -> int:
        if self._dynamic:
            return max(self._lengths[0], tokens)
        return next(length for length in self._lengths if length >= tokens)
