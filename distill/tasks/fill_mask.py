"""Training of masked language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.recipe.terms import Name
from distill.signals.outputs import Reading
from distill.tasks.base import RowReader
from distill.tasks.heads import HeadTraining
from edge.data import Table
from edge.tasks import Task
from edge.tasks.base import in_pieces
from edge.tokenization import Encoding

if TYPE_CHECKING:
    from distill.data.batches import Samples
    from distill.data.views import View
    from distill.students import Teacher


class FillMaskTraining(HeadTraining):
    """Masked tokens are the labels."""

    reading = Reading(per_token=True)
    has_small_head = False
    masks_tokens = True
    allows_own_vocabulary = True

    def read(self, task: Task, table: Table, reader: RowReader) -> Samples:
        """Pieces of texts whose own tokens are masked; those without any are left out."""
        from distill.data.masking import masked_samples

        tokenizer = reader.tokenizer
        if tokenizer.info.mask_token_id is None:
            raise task.unfit(table, "the tokenizer has no mask token")
        whole = tokenizer.encode_whole(table.texts)
        pieces, rows = in_pieces(whole, reader.max_length, overlap=0.0)
        real = [i for i, piece in enumerate(pieces) if not all(piece.special or ())]
        if not real:
            raise task.unfit(table, "every text is empty")
        encodings: Sequence[Encoding] = [pieces[i] for i in real]
        mixer, size = reader.mixer, None
        if mixer is not None:
            size = mixer.size
            encodings = mixer.mix(table, encodings, [rows[i] for i in real], reader.max_length)
        return masked_samples(
            encodings, tokenizer, reader.masking, seed=reader.seed, vocabulary=size
        )

    def views(
        self, table: Table, teachers: Mapping[Name, Teacher], *_: Any, **__: Any
    ) -> dict[Name, View]:
        """None: a teacher with other tokens has nothing to say of masked ones."""
        return {}
