"""Training of models that tag the words of a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distill.signals.outputs import Reading
from distill.tasks.base import RowReader, check_classes, first_target
from distill.tasks.heads import HeadTraining
from edge.data import Table
from edge.tasks import Task
from edge.tasks.base import in_pieces
from edge.tasks.token_classification import OVERLAP, TokenClassification

if TYPE_CHECKING:
    from distill.data.batches import Samples, Targets


class TokenClassificationTraining(HeadTraining):
    """Classes of the words of a sentence."""

    reading = Reading(per_token=True)
    names_classes = True

    def check_targets(self, table: Table, targets: Targets) -> None:
        tags = first_target(table)
        check_classes(table, targets, tags[0] if tags else tags)

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        """A word's label belongs to its first token, in the first piece that has it."""
        from distill.data.batches import Samples
        from distill.losses.distributions import IGNORED

        assert isinstance(task, TokenClassification)
        if table.words is None or table.targets is None:
            raise task.unfit(table, "there are no words with tags")
        tags = task.tags(table)
        index = {label: number for number, label in enumerate(task.labels or ())}
        strange = sorted({tag for row in tags for tag in row} - set(index))
        if strange:
            raise task.unfit(
                table, f"tag {strange[0]!r} is not one of the model's ({', '.join(index)})"
            )
        whole = reader.tokenizer.encode_words(table.words)
        encodings, rows = in_pieces(whole, reader.max_length, OVERLAP)
        seen: set[tuple[int, int]] = set()
        targets = []
        for row, encoding in zip(rows, encodings, strict=True):
            labels = np.full(len(encoding), IGNORED, np.int64)
            for position, word in enumerate(encoding.words or ()):
                if word is not None and (row, word) not in seen:
                    seen.add((row, word))
                    labels[position] = index[tags[row][word]]
            targets.append(labels)
        return Samples(encodings, targets, reader.tokenizer)
