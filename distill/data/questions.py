"""Rows arranged so that the candidates of one question are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.data import Table
from edge.errors import DataError

_SHOWN = 40


def in_questions(table: Table, candidates: int, *, negatives: bool, seed: int) -> Table:
    """The rows in runs of `candidates` that have their first text in common.

    A question with more of them has several runs, the last of which takes some again. negatives:
    one with fewer is given second texts of other questions, without a label, by `seed`.
    Raises DataError for rows without a second text, and for a question with too few.
    """
    if table.pairs is None:
        raise DataError(
            f"{table.source} has one text in each row: candidates: {candidates} compares the "
            "passages of a question, so a row needs both"
        )
    rows: list[int] = []
    extra: list[tuple[str, str]] = []
    random = np.random.default_rng(seed)
    passages = list(dict.fromkeys(table.pairs))
    for question, own in _questions(table).items():
        if len(own) >= candidates:
            rows += _runs(own, candidates)
            continue
        if not negatives:
            raise _too_few(table, question, len(own), candidates)
        known = {table.pairs[row] for row in own}
        found = _others(table, passages, known, candidates - len(own), random)
        rows += [*own, *range(len(table) + len(extra), len(table) + len(extra) + len(found))]
        extra += [(question, passage) for passage in found]
    return _extended(table, extra).take(rows)


def _questions(table: Table) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, question in enumerate(table.texts):
        found.setdefault(question, []).append(row)
    return found


def _runs(own: list[int], candidates: int) -> list[int]:
    missing = -len(own) % candidates
    return [*own, *own[:missing]]


def _others(
    table: Table, passages: Sequence[str], known: set[str], count: int, random: np.random.Generator
) -> list[str]:
    """`count` passages that are not among those a question has."""
    if len(passages) - len(known) < count:
        raise DataError(
            f"{table.source} has {len(passages)} passages, too few for {count} that a question "
            "does not have: ask for fewer candidates"
        )
    found: dict[str, None] = {}
    while len(found) < count:
        passage = passages[int(random.integers(len(passages)))]
        if passage not in known:
            found[passage] = None
    return list(found)


def _extended(table: Table, extra: Sequence[tuple[str, str]]) -> Table:
    targets = table.targets or [None] * len(table)
    return replace(
        table,
        texts=[*table.texts, *(question for question, _ in extra)],
        pairs=[*(table.pairs or ()), *(passage for _, passage in extra)],
        targets=[*targets, *[None] * len(extra)],
    )


def _too_few(table: Table, question: str, count: int, candidates: int) -> DataError:
    shown = question if len(question) <= _SHOWN else f"{question[:_SHOWN]}..."
    return DataError(
        f"{table.source}: '{shown}' has {count} candidate{'s' * (count > 1)} where "
        f"{candidates} are compared: give it more, ask for fewer, or add negatives: true to match: "
        "margin, which takes those of other questions"
    )
