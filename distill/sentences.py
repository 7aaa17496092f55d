"""Rows of texts that a student reads one by one, whatever a teacher does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.batches import ROWS, Row, Samples
from distill.terms import Name
from edge.data import Table
from edge.errors import DataError
from edge.tasks import Task
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer


class SentenceSamples(Samples):
    """Rows of one or two texts, each of them an input of its own.

    encodings: the texts of each row in a run, N * sides. A batch of B rows has inputs
    (B * sides, L), first and second texts in turn, and `rows` that count texts; labels are (B,).
    """

    def __init__(
        self,
        encodings: Sequence[Encoding],
        targets: Array,
        tokenizer: Tokenizer,
        *,
        block: int = 1,
    ) -> None:
        super().__init__(encodings, targets, tokenizer)
        self.block = block
        self._sides = len(encodings) // len(targets)
        self._views: dict[Name, Samples] = {}

    def add_view(self, name: Name, view: Samples) -> None:
        """Say who reads the rows otherwise, and how: with as many inputs for each row."""
        self._views[name] = view

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Row:
        return index, self.encodings[index * self._sides], self.targets[index]

    @property
    def lengths(self) -> Array:
        """The tokens of the longer text."""
        longest: Array = super().lengths.reshape(-1, self._sides).max(1)
        return longest

    def read_by(self, name: Name) -> Samples:
        if name in self._views:
            return self._views[name]
        blank = np.full(len(self.encodings), np.nan)
        return Samples(self.encodings, blank, self._tokenizer)

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        numbers = [index for index, _, _ in rows]
        batch = _inputs(self.read_by(""), numbers, self._sides)
        batch["labels"] = torch.as_tensor(np.stack([target for _, _, target in rows])).float()
        for name, view in self._views.items():
            inputs = _inputs(view, numbers, len(view) // len(self))
            batch |= {f"{name}.{key}": value for key, value in inputs.items()}
        return batch


def sentence_samples(
    task: Task, table: Table, tokenizer: Tokenizer, *, max_length: int
) -> SentenceSamples:
    """Every text alone, cut to `max_length` tokens; targets are similarities of at most 1."""
    encodings = tokenizer.encode(texts_in_turn(table), max_length=max_length)
    return SentenceSamples(encodings, similarities(task, table), tokenizer)


def texts_in_turn(table: Table) -> list[str]:
    """The one or two texts of each row, row by row."""
    columns = [table.texts] if table.pairs is None else [table.texts, table.pairs]
    return [text for row in zip(*columns, strict=True) for text in row]


def similarities(task: Task, table: Table) -> Array:
    """How alike the texts of each row are, (N,), a number that is not one where nothing is known.

    Divided by the largest where that is above 1, as on STS-B's scale of 0 to 5: cosines end at 1.
    """
    found: Array = np.full(len(table), np.nan)
    known = [i for i, value in enumerate(table.targets or ()) if value is not None]
    if known:
        found[known] = task.targets(table.take(known))
        found /= max(1.0, float(np.nanmax(found)))
    return found


def check_similarities(table: Table, targets: Array) -> None:
    """Raise DataError where labels have nothing to teach."""
    known = targets[~np.isnan(targets)]
    if table.pairs is None or not len(known):
        raise DataError(
            f"{table.source} has no pairs with similarities, which match: labels learns from: "
            "name their columns, or use a recipe without labels"
        )
    if np.ptp(known) == 0:
        raise DataError(
            f"{table.source}: all pairs are equally alike, so match: labels has nothing to tell "
            "apart"
        )


def _inputs(samples: Samples, numbers: Sequence[int], each: int) -> dict[str, Tensor]:
    """The inputs of `each` encodings of every row, and which ones those are."""
    indices = [number * each + side for number in numbers for side in range(each)]
    batch = samples.collate([samples[index] for index in indices])
    return {name: value for name, value in batch.items() if name != "labels"} | {
        ROWS: torch.as_tensor(indices)
    }
