"""Feeding a model: encoded rows, batches padded to their longest row, and their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Sampler

from distill.data.views import View
from distill.losses.distributions import IGNORED
from distill.recipe.config import Stage
from distill.recipe.terms import Name
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer

# The entry of a batch that stands in for rows that other processes have; see `StepBatches`.
IDLE = "idle"
# A row's number, what the student reads of it, and its target.
Row = tuple[int, list[Encoding], Array]
# One for each row, (N, ...), or one with a number for each token of a row.
Targets = Array | Sequence[Array]
# How many batches' worth of rows are sorted by length together: enough for little padding.
_POOL_BATCHES = 50


class Samples(Dataset[Row]):
    """Rows to train on: their targets in the task's form, and a view for each of their readers.

    encodings: what the student reads, as many in a run for each row as fit the number of targets.
    views: what others read, by name, with a number of encodings for each row of its own; a batch
    has their NAME.input_ids and so on. block: runs of so many rows stay together, as those of one
    question do.
    """

    def __init__(
        self, encodings: Sequence[Encoding], targets: Targets, tokenizer: Tokenizer
    ) -> None:
        self.own = View(encodings, tokenizer)
        self.targets = targets
        self.views: dict[Name, View] = {}
        self.block = 1

    @property
    def encodings(self) -> Sequence[Encoding]:
        """What the student reads."""
        return self.own.encodings

    def set_epoch(self, epoch: int) -> None:
        """Told when an epoch starts, for views that change from one to the next."""
        for view in (self.own, *self.views.values()):
            view.set_epoch(epoch)

    def read_by(self, name: Name) -> View:
        """The rows as who takes part under a name reads them."""
        return self.views.get(name, self.own)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Row:
        own = [self.encodings[i] for i in self._inputs(self.own, [index])]
        return index, own, self.targets[index]

    @property
    def lengths(self) -> Array:
        """The tokens of the longest text of each row that the student reads, (N,)."""
        lengths = self.own.lengths
        return lengths if len(lengths) == len(self) else lengths.reshape(len(self), -1).max(1)

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Model inputs and `rows` of the student (see `View.batch`), those of views, and `labels`.

        labels: (B,), (B, C), or (B, L) for tasks that answer for each token.
        """
        numbers = [number for number, _, _ in rows]
        own = [encoding for _, encodings, _ in rows for encoding in encodings]
        batch = self.own.batch(self._inputs(self.own, numbers), own)
        batch["labels"] = self._labels([target for _, _, target in rows], max(map(len, own)))
        for name, view in self.views.items():
            inputs = view.batch(self._inputs(view, numbers))
            batch |= {f"{name}.{key}": value for key, value in inputs.items()}
        return batch

    def _inputs(self, view: View, numbers: Sequence[int]) -> list[int]:
        """Which encodings of a view are those of some rows."""
        each = len(view) // len(self)
        return [number * each + side for number in numbers for side in range(each)]

    def _labels(self, targets: Sequence[Array], length: int) -> Tensor:
        if not isinstance(self.targets, np.ndarray):
            targets = [
                np.pad(target, (0, length - len(target)), constant_values=IGNORED)
                for target in targets
            ]
        labels = torch.as_tensor(np.stack(targets))
        return labels.float() if labels.is_floating_point() else labels


class BucketSampler(Sampler[int]):
    """Rows in an order whose batches hold rows of similar length; batches come in random order.

    The order depends on seed and epoch alone, so a run that is continued sees what it would have
    seen. batch_size: that of an optimiser step. on_epoch: who else is told that an epoch starts;
    data loaders tell their sampler always, their data set not when they skip batches. block: runs
    of so many rows stay together.
    """

    def __init__(
        self,
        lengths: Array,
        batch_size: int,
        *,
        seed: int,
        on_epoch: Callable[[int], None] | None = None,
        block: int = 1,
    ) -> None:
        self._on_epoch = on_epoch
        self._lengths = lengths.reshape(-1, block).max(1)
        self._batch_size = batch_size // block
        self.block = block
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if self._on_epoch is not None:
            self._on_epoch(epoch)

    def __len__(self) -> int:
        return len(self._lengths) * self.block

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
            yield from self._rows(full[index])
        for batch in rest:
            yield from self._rows(batch)

    def _rows(self, blocks: Array) -> list[int]:
        rows: list[int] = (blocks[:, None] * self.block + np.arange(self.block)).ravel().tolist()
        return rows


class StepBatches(BatchSampler):
    """The batches of `batch_size` rows that an order gives, or one process's part of each.

    Each batch is the same whatever the number of processes: it is cut into `parts` runs of blocks
    of rows whose numbers differ by one at most. Where the last batch of an epoch has fewer rows
    than there are processes, some of them get no rows.
    """

    def __init__(
        self, order: BucketSampler, batch_size: int, *, parts: int = 1, part: int = 0
    ) -> None:
        super().__init__(order, batch_size, drop_last=False)
        self._parts, self._part, self._block = parts, part, order.block

    @classmethod
    def of(
        cls,
        samples: Samples,
        batch_size: int,
        *,
        accumulation: int = 1,
        seed: int,
        parts: int = 1,
        part: int = 0,
    ) -> StepBatches:
        """The batches of a data set, which is told when an epoch starts."""
        order = BucketSampler(
            samples.lengths,
            batch_size * accumulation,
            seed=seed,
            on_epoch=samples.set_epoch,
            block=samples.block,
        )
        return cls(order, batch_size, parts=parts, part=part)

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.sampler, BucketSampler)
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            blocks = np.asarray(batch).reshape(-1, self._block)
            yield np.array_split(blocks, self._parts)[self._part].ravel().tolist()


class Collator:
    """Makes a batch of rows; of no rows, one whose values are not to count."""

    def __init__(self, samples: Samples, idle_rows: int) -> None:
        self._samples = samples
        self._idle_rows = min(idle_rows, len(samples))

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        if rows:
            return self._samples.collate(rows)
        batch = self._samples.collate([self._samples[i] for i in range(self._idle_rows)])
        return {**batch, IDLE: torch.tensor(0.0)}


def steps_of(stage: Stage, rows: int) -> int:
    """The optimiser steps of a stage over so many rows, as Trainer counts them."""
    if stage.max_steps is not None:
        return stage.max_steps
    per_epoch = math.ceil(math.ceil(rows / stage.batch_size) / stage.gradient_accumulation)
    return math.ceil(stage.epochs * per_epoch)
