"""Training of models that find the answer to a question in a context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distill.signals.outputs import Reading
from distill.tasks.base import RowReader
from distill.tasks.heads import HeadTraining
from edge.data import Table
from edge.tasks import Task
from edge.tasks.base import in_pieces
from edge.tasks.question_answering import OVERLAP, QuestionAnswering, answer_span
from edge.tokenization import Encoding

if TYPE_CHECKING:
    from distill.data.batches import Samples


class QuestionAnsweringTraining(HeadTraining):
    """Two distributions over the tokens of a text."""

    reading = Reading(("start_logits", "end_logits"), over_tokens=True)
    # A start and an end, whatever the encoder was for before; Transformers counts labels.
    label_count = 2

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        """The first and last token of the answer, the first token where a piece does not hold it.

        An answer that its context does not contain is no label at all.
        """
        from distill.data.batches import Samples

        assert isinstance(task, QuestionAnswering)
        contexts = table.pairs
        if contexts is None or table.targets is None:
            raise task.unfit(table, "there are no contexts with answers")
        accepted = task.accepted(table)
        spans = [
            answer_span(value, texts, context)[0]
            for value, texts, context in zip(table.targets, accepted, contexts, strict=True)
        ]
        if not any(spans):
            raise task.unfit(table, "no context contains its answer")
        whole = reader.tokenizer.encode_whole(table.texts, contexts)
        encodings, rows = in_pieces(whole, reader.max_length, OVERLAP)
        targets = [_positions(e, spans[row]) for row, e in zip(rows, encodings, strict=True)]
        return Samples(encodings, np.asarray(targets, np.int64), reader.tokenizer)


def _positions(encoding: Encoding, span: tuple[int, int] | None) -> tuple[int, int]:
    from distill.losses.distributions import IGNORED

    if span is None:
        return IGNORED, IGNORED
    start, end = span
    offsets, parts = encoding.offsets or [], encoding.parts or []
    context = [i for i, part in enumerate(parts) if part == 1]
    touched = [i for i in context if offsets[i][1] > start and offsets[i][0] < end]
    if not touched or offsets[touched[0]][0] > start or offsets[touched[-1]][1] < end:
        return 0, 0
    return touched[0], touched[-1]
