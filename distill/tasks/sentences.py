"""Rows of texts that a student reads one by one, whatever a teacher does."""

from __future__ import annotations

import numpy as np

from distill.data.batches import Samples
from edge.data import Table
from edge.errors import DataError
from edge.tasks import Task
from edge.tasks.base import Array
from edge.tokenization import Tokenizer


def sentence_samples(task: Task, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Samples:
    """Every text alone, cut to `max_length` tokens; targets are similarities of at most 1.

    A row of two texts has two inputs, first and second texts in turn.
    """
    encodings = tokenizer.encode(texts_in_turn(table), max_length=max_length)
    return Samples(encodings, similarities(task, table), tokenizer)


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
