"""What a model reads of a data file and should answer, for each task that can be trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distill.augment import targets_of
from distill.data.batches import Samples, Targets
from distill.data.masking import masked_samples
from distill.data.mixing import Mixer
from distill.losses.distributions import IGNORED
from distill.recipe.tokens import Masking
from distill.tasks.sentences import sentence_samples
from edge.data import Table
from edge.errors import ConfigError, DataError
from edge.tasks import Task
from edge.tasks.base import in_pieces
from edge.tasks.feature_extraction import FeatureExtraction
from edge.tasks.fill_mask import FillMask
from edge.tasks.question_answering import OVERLAP as ANSWER_OVERLAP
from edge.tasks.question_answering import QuestionAnswering, answer_span
from edge.tasks.token_classification import OVERLAP as WORD_OVERLAP
from edge.tasks.token_classification import TokenClassification
from edge.tokenization import Encoding, Tokenizer


class _Reading(NamedTuple):
    """How rows are read. seed, masking: what of them is hidden, where something is.

    mixer: who reads them in the words of two vocabularies.
    """

    tokenizer: Tokenizer
    max_length: int
    masking: Masking
    seed: int
    mixer: Mixer | None


def samples_of(
    task: Task,
    table: Table,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    masking: Masking | None = None,
    seed: int = 0,
    mixer: Mixer | None = None,
) -> Samples:
    """The rows of `table` to train on, of at most `max_length` tokens each.

    Texts with a label are cut; sentences of tagged words, contexts of questions and plain texts
    run in pieces. Raises DataError when the table does not fit the task, ConfigError for `masking`
    where nothing is hidden. mixer: reads the words of texts, and of plain ones, by turns.
    """
    if masking is not None and not isinstance(task, FillMask):
        raise ConfigError(f"masking is for {FillMask.name}, {task.name} hides no tokens")
    reading = _Reading(tokenizer, max_length, masking or Masking(), seed, mixer)
    return _READERS[task.name](task, table, reading)


def check_variety(task: Task, table: Table, targets: Targets) -> None:
    """Raise DataError for a constant target: it teaches nothing, and is often the wrong column."""
    if isinstance(task, QuestionAnswering | FillMask | FeatureExtraction):
        return
    values = np.concatenate(targets) if isinstance(targets, list) else np.asarray(targets)
    unknown = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else values == IGNORED
    values = values[~unknown.reshape(len(values), -1).any(-1)]
    if not len(values) or np.equal(values, values[0]).all():
        first = next((value for value in table.targets or () if value is not None), None)
        named = first if not isinstance(task, TokenClassification) or not first else first[0]
        raise DataError(
            f"{table.source} has one class only, {named!r} in every row: "
            "training needs at least two"
        )


def _texts(task: Task, table: Table, reading: _Reading) -> Samples:
    encodings = read_texts(table, reading.tokenizer, reading.max_length, reading.mixer)
    return Samples(encodings, targets_of(task, table, needed=False), reading.tokenizer)


def read_texts(
    table: Table, tokenizer: Tokenizer, max_length: int, mixer: Mixer | None
) -> Sequence[Encoding]:
    """The texts or pairs of each row, cut to `max_length` tokens."""
    if mixer is not None:
        return mixer.read(table, max_length)
    return tokenizer.encode(table.texts, table.pairs, max_length=max_length)


def _words(task: Task, table: Table, reading: _Reading) -> Samples:
    """A word's label belongs to its first token, in the first piece that has it."""
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
    whole = reading.tokenizer.encode_words(table.words)
    encodings, rows = in_pieces(whole, reading.max_length, WORD_OVERLAP)
    seen: set[tuple[int, int]] = set()
    targets = []
    for row, encoding in zip(rows, encodings, strict=True):
        labels = np.full(len(encoding), IGNORED, np.int64)
        for position, word in enumerate(encoding.words or ()):
            if word is not None and (row, word) not in seen:
                seen.add((row, word))
                labels[position] = index[tags[row][word]]
        targets.append(labels)
    return Samples(encodings, targets, reading.tokenizer)


def _answers(task: Task, table: Table, reading: _Reading) -> Samples:
    """The first and last token of the answer, the first token where a piece does not hold it.

    An answer that its context does not contain is no label at all.
    """
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
    whole = reading.tokenizer.encode_whole(table.texts, contexts)
    encodings, rows = in_pieces(whole, reading.max_length, ANSWER_OVERLAP)
    targets = [_positions(e, spans[row]) for row, e in zip(rows, encodings, strict=True)]
    return Samples(encodings, np.asarray(targets, np.int64), reading.tokenizer)


def _plain(task: Task, table: Table, reading: _Reading) -> Samples:
    """Texts whose own tokens are hidden; those without any are left out."""
    tokenizer = reading.tokenizer
    if tokenizer.info.mask_token_id is None:
        raise task.unfit(table, "the tokenizer has no mask token")
    pieces, rows = in_pieces(tokenizer.encode_whole(table.texts), reading.max_length, overlap=0.0)
    real = [i for i, piece in enumerate(pieces) if not all(piece.special or ())]
    if not real:
        raise task.unfit(table, "every text is empty")
    encodings: Sequence[Encoding] = [pieces[i] for i in real]
    mixer, size = reading.mixer, None
    if mixer is not None:
        size = mixer.size
        encodings = mixer.mix(table, encodings, [rows[i] for i in real], reading.max_length)
    return masked_samples(encodings, tokenizer, reading.masking, seed=reading.seed, vocabulary=size)


def _sentences(task: Task, table: Table, reading: _Reading) -> Samples:
    return sentence_samples(task, table, reading.tokenizer, max_length=reading.max_length)


def _positions(encoding: Encoding, span: tuple[int, int] | None) -> tuple[int, int]:
    if span is None:
        return IGNORED, IGNORED
    start, end = span
    offsets, parts = encoding.offsets or [], encoding.parts or []
    context = [i for i, part in enumerate(parts) if part == 1]
    touched = [i for i in context if offsets[i][1] > start and offsets[i][0] < end]
    if not touched or offsets[touched[0]][0] > start or offsets[touched[-1]][1] < end:
        return 0, 0
    return touched[0], touched[-1]


_READERS: dict[str, Callable[[Task, Table, _Reading], Samples]] = {
    "text-classification": _texts,
    "token-classification": _words,
    "question-answering": _answers,
    "fill-mask": _plain,
    "feature-extraction": _sentences,
}
