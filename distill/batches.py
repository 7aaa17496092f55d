"""Feeding a model: encoded rows, batches padded to their longest row, and their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edge.data import Table
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer

# How many batches' worth of rows are sorted by length together: enough for little padding.
_POOL_BATCHES = 50


class Samples(Dataset[tuple[Encoding, Array]]):
    """Encoded rows and their targets in the task's form."""

    def __init__(
        self, table: Table, targets: Array, tokenizer: Tokenizer, *, max_length: int
    ) -> None:
        self.encodings = tokenizer.encode(table.texts, table.pairs, max_length=max_length)
        self.targets = targets
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.encodings)

    def __getitem__(self, index: int) -> tuple[Encoding, Array]:
        return self.encodings[index], self.targets[index]

    @property
    def lengths(self) -> Array:
        return np.asarray([len(encoding) for encoding in self.encodings])

    def collate(self, rows: Sequence[tuple[Encoding, Array]]) -> dict[str, Tensor]:
        """Model inputs (B, L) padded to the longest row, and `labels` (B,) or (B, C)."""
        encodings = [encoding for encoding, _ in rows]
        columns = self._tokenizer.pad(encodings, max(map(len, encodings)))
        batch = {name: torch.from_numpy(column).long() for name, column in columns.items()}
        labels = torch.as_tensor(np.stack([target for _, target in rows]))
        batch["labels"] = labels.float() if labels.is_floating_point() else labels
        return batch


class BucketSampler(Sampler[int]):
    """Rows in an order whose batches hold rows of similar length; batches come in random order.

    The order depends on seed and epoch alone, so a run that is continued sees what it would have
    seen. `batch_size` is that of an optimiser step.
    """

    def __init__(self, lengths: Array, batch_size: int, *, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(len(self._lengths))
        pool = self._batch_size * _POOL_BATCHES
        batches = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [
                rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)
            ]
        # A batch that is not full stays last, or every batch after it would be cut elsewhere.
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        for index in random.permutation(len(full)):
            yield from full[index].tolist()
        for batch in rest:
            yield from batch.tolist()
