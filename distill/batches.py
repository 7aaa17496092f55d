"""Feeding a model: encoded rows, batches padded to their longest row, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from distill.losses import IGNORED
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer

# The entry of a batch that says which rows of the data it holds, (B,).
ROWS = "rows"
# A row's number, its tokens and its target.
Row = tuple[int, Encoding, Array]
# One for each row, (N, ...), or a list with one for each token of a row.
Targets = Array | list[Array]
# How many batches' worth of rows are sorted by length together: enough for little padding.
_POOL_BATCHES = 50


class Samples(Dataset[Row]):
    """Encoded rows and their targets in the task's form."""

    def __init__(
        self, encodings: Sequence[Encoding], targets: Targets, tokenizer: Tokenizer
    ) -> None:
        self.encodings = encodings
        self.targets = targets
        self._tokenizer = tokenizer

    def set_epoch(self, epoch: int) -> None:
        """Told when an epoch starts, for rows that change from one to the next."""

    def __len__(self) -> int:
        return len(self.encodings)

    def __getitem__(self, index: int) -> Row:
        return index, self.encodings[index], self.targets[index]

    @property
    def lengths(self) -> Array:
        return np.asarray([len(encoding) for encoding in self.encodings])

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Model inputs (B, L) padded to the longest row, `labels` and `rows` (B,).

        labels: (B,), (B, C), or (B, L) for tasks that answer for each token.
        """
        encodings = [encoding for _, encoding, _ in rows]
        length = max(map(len, encodings))
        columns = self._tokenizer.pad(encodings, length)
        batch = {name: torch.from_numpy(column).long() for name, column in columns.items()}
        targets = [target for _, _, target in rows]
        if isinstance(self.targets, list):
            targets = [
                np.pad(target, (0, length - len(target)), constant_values=IGNORED)
                for target in targets
            ]
        labels = torch.as_tensor(np.stack(targets))
        batch["labels"] = labels.float() if labels.is_floating_point() else labels
        batch[ROWS] = torch.as_tensor([index for index, _, _ in rows])
        return batch


class BucketSampler(Sampler[int]):
    """Rows in an order whose batches hold rows of similar length; batches come in random order.

    The order depends on seed and epoch alone, so a run that is continued sees what it would have
    seen. batch_size: that of an optimiser step. on_epoch: who else is told that an epoch starts;
    data loaders tell their sampler always, their data set not when they skip batches.
    """

    def __init__(
        self,
        lengths: Array,
        batch_size: int,
        *,
        seed: int,
        on_epoch: Callable[[int], None] | None = None,
    ) -> None:
        self._on_epoch = on_epoch
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if self._on_epoch is not None:
            self._on_epoch(epoch)

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
