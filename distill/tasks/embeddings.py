"""What a run whose student embeds texts needs beside any other's: see `distill.tasks.sentences`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data.batches import Samples
from distill.data.views import View
from distill.recipe.config import Stage
from distill.recipe.terms import LabelsTerm, MarginTerm, Name, TaughtTerm, counts
from distill.students import Teacher
from distill.students.base import tokenizer_of
from distill.students.embedded import directions_of, sample_of, vectors_of
from distill.tasks.sentences import check_similarities, texts_in_turn
from distill.training.evaluation import Judge
from edge.checkpoint import max_length
from edge.console import hush
from edge.data import Table
from edge.errors import ConfigError, DataError, UserError
from edge.tasks import Outputs, Task
from edge.tasks.base import Array, Examples, numbers
from edge.tasks.feature_extraction import FeatureExtraction, agreement
from edge.tokenization import Encoding, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLE = 512


def cross_encoders(teachers: Mapping[Name, Teacher]) -> dict[Name, Teacher]:
    """Those that read two texts as one."""
    return {
        name: one
        for name, one in teachers.items()
        if one.checkpoint.task.name != FeatureExtraction.name
    }


def spreads(teachers: Mapping[Name, Teacher], table: Table, length: int) -> dict[Name, float]:
    """How far apart each cross-encoder's scores of some rows are: their standard deviation.

    Raises UserError for one that gives all of them the same.
    """
    found = {}
    for name, teacher in cross_encoders(teachers).items():
        order = np.random.default_rng(0).permutation(len(table))[:_SAMPLE]
        rows = table.take(sorted(order.tolist()))
        judge = _scorer(teacher, rows, length, lambda scores: {"spread": float(np.std(scores))})
        with hush():
            _, found[name] = judge(teacher.model)
        if not found[name] > 1e-6:
            raise UserError(
                f"teacher {teacher.checkpoint.source} scores every pair of {table.source} alike, "
                "so there is nothing to learn from it: is it trained, and is --pair-column right?"
            )
    return found


def directions(teachers: Mapping[Name, Teacher], student: Any, table: Table) -> dict[Name, Tensor]:
    """Of each teacher with longer vectors than the student's, what those are cut to."""
    found = {}
    for name, teacher in teachers.items():
        model = vectors_of(teacher)
        if model is not None and model.size > student.size:
            found[name] = directions_of(teacher, student.size, sample_of(table))
    return found


def teacher_views(
    table: Table,
    teachers: Mapping[Name, Teacher],
    length: int,
    *,
    own_words: bool = False,
    translations: bool = False,
) -> dict[Name, View]:
    """What teachers read of the rows that the student does not, by name.

    Cross-encoders read the two texts of a row as one, others in their own tokens. own_words:
    whether the student's tokens are others than the teachers'. translations: whether they read the
    first text in place of the second.
    """
    joint = cross_encoders(teachers)
    views: dict[Name, View] = {}
    for name, teacher in teachers.items():
        if name in joint:
            views[name] = View(*_read_as_one(teacher, table, length))
        elif own_words or translations:
            tokenizer = tokenizer_of(teacher)
            read = replace(table, pairs=table.texts) if translations else table
            views[name] = View(tokenizer.encode(texts_in_turn(read), max_length=length), tokenizer)
    return views


def check_stage(stage: Stage, table: Table, samples: Samples) -> None:
    """Raise DataError for rows that a term cannot learn from, ConfigError for what does not fit."""
    if stage.translations and table.pairs is None:
        raise _no_pairs(table, "translations: true needs a text in both languages")
    for term in stage.terms:
        if not counts(term):
            continue
        if isinstance(term, LabelsTerm):
            check_similarities(table, np.asarray(samples.targets))
        elif stage.translations and term.match != "logits":
            raise ConfigError(
                f"match: {term.match} compares the same words, and with translations: true the "
                "teacher reads others: use match: logits"
            )
        elif isinstance(term, MarginTerm) and table.pairs is None:
            raise _no_pairs(table, "match: margin compares how alike two are")


def check_pairs(table: Table, stages: Sequence[Stage], teachers: Mapping[Name, Teacher]) -> None:
    """Raise DataError where a cross-encoder would have one text to read."""
    follows = any(isinstance(t, TaughtTerm) and counts(t) for stage in stages for t in stage.terms)
    if follows and table.pairs is None and cross_encoders(teachers):
        raise _no_pairs(table, "a cross-encoder reads two")


def judge_of(
    task: Task,
    table: Table,
    tokenizer: Tokenizer,
    teachers: Mapping[Name, Teacher],
    length: int,
) -> Judge:
    """Measures embeddings, and a cross-encoder on the same pairs by the same metric."""
    examples = task.examples(table, tokenizer, max_length=length)
    joint, similar = None, numbers(table)
    for teacher in cross_encoders(teachers).values():
        joint = _scorer(teacher, table, length, lambda x: agreement(x, similar, table.texts))
    return Judge(task, examples, tokenizer, joint)


def _scorer(
    teacher: Teacher, table: Table, length: int, judge: Callable[[Array], dict[str, float]]
) -> Judge:
    """Gives what `judge` says of a cross-encoder's scores of the rows, (N,)."""
    encodings, tokenizer = _read_as_one(teacher, table, length)

    def score(outputs: Iterable[Outputs]) -> dict[str, float]:
        return judge(np.asarray([output["logits"][0] for output in outputs], np.float64))

    return Judge(teacher.checkpoint.task, Examples(encodings, score), tokenizer)


def _read_as_one(teacher: Teacher, table: Table, length: int) -> tuple[list[Encoding], Tokenizer]:
    """Both texts as one input, of twice the length where the teacher can read as much."""
    tokenizer = tokenizer_of(teacher)
    limit = min(2 * length, max_length(teacher.checkpoint, teacher.tokenizer))
    return tokenizer.encode(table.texts, table.pairs, max_length=limit), tokenizer


def _no_pairs(table: Table, why: str) -> DataError:
    return DataError(
        f"{table.source} has one text in each row, and {why}: name the second with --pair-column"
    )
