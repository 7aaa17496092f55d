"""Rows with labels and rows without in one stage: what trains on which, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.data import Table
from edge.errors import DataError
from edge.tasks import Task
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION
from edge.tokenization import Tokenizer

Array = npt.NDArray[Any]
_CHUNK_ROWS = 10_000


def mix(labelled: Table, *extra: Table) -> Table:
    """The rows of `labelled`, then those of `extra`, whose targets are None.

    Raises DataError when one holds pairs and the other does not.
    """
    for other in extra:
        if (other.pairs is None) != (labelled.pairs is None):
            raise DataError(f"{labelled.source} and {other.source}: one holds pairs, one does not")
    count = sum(map(len, extra))
    pairs = labelled.pairs
    if pairs is not None:
        pairs = [*pairs, *(pair for other in extra for pair in other.pairs or [])]
    return replace(
        labelled,
        texts=[*labelled.texts, *(text for other in extra for text in other.texts)],
        pairs=pairs,
        targets=[*(labelled.targets or [None] * len(labelled)), *[None] * count],
        words=None,
    )


def targets_of(task: Task, table: Table, *, needed: bool = True) -> Array:
    """Targets in the task's form, (N, ...), of a table in which those of some rows are None.

    Where nothing is known: -100 for classes, a number that is not one for scores, as terms that
    follow labels expect. Raises DataError when a known one does not fit the task, or none is known
    and one is needed.
    """
    from distill.losses.distributions import IGNORED

    given = table.targets or [None] * len(table)
    known = np.asarray([target is not None for target in given], bool)
    if not known.any() and needed:
        raise DataError(f"{table.source} has no labels at all: at least some rows need one")
    if not known.any():
        return _no_targets(task, len(table))
    found = task.targets(table.take(np.flatnonzero(known).tolist()))
    unknown = IGNORED if np.issubdtype(found.dtype, np.integer) else np.nan
    values: Array = np.full((len(known), *found.shape[1:]), unknown, found.dtype)
    values[known] = found
    return values


def _no_targets(task: Task, count: int) -> Array:
    """Targets of rows none of which has a label."""
    from distill.losses.distributions import IGNORED

    if task.problem_type == REGRESSION:
        return np.full(count, np.nan)
    several = (len(task.labels or ()),) if task.problem_type == MULTI_LABEL else ()
    return np.full((count, *several), IGNORED, np.int64)


def encode_rows(table: Table, targets: Array, tokenizer: Tokenizer, *, max_length: int) -> Any:
    """A `datasets.Dataset` of encoded rows, in Arrow: a tenth of what lists of numbers take.

    Columns: input_ids, token_type_ids where the model reads them, length, labels, and rows: the
    row's number, which a cached teacher is asked by.
    """
    import datasets
    import pyarrow

    chunks = _chunks(table, targets, tokenizer, max_length)
    return datasets.Dataset(pyarrow.concat_tables(pyarrow.table(chunk) for chunk in chunks))


def _chunks(
    table: Table, targets: Array, tokenizer: Tokenizer, max_length: int
) -> Iterator[dict[str, Any]]:
    import pyarrow

    for start in range(0, len(table), _CHUNK_ROWS):
        rows = range(start, min(start + _CHUNK_ROWS, len(table)))
        part = table.take(rows)
        found = tokenizer.encode(part.texts, part.pairs, max_length=max_length)
        lengths = np.asarray([len(encoding) for encoding in found], np.int32)
        chunk = {"input_ids": _lists([e.input_ids for e in found], lengths)}
        if found[0].token_type_ids is not None:
            chunk["token_type_ids"] = _lists([e.token_type_ids for e in found], lengths)
        chunk["length"] = lengths
        labels = targets[rows.start : rows.stop]
        chunk["labels"] = pyarrow.array(list(labels) if labels.ndim > 1 else labels)
        chunk["rows"] = np.arange(rows.start, rows.stop, dtype=np.int64)
        yield chunk


def _lists(values: list[Any], lengths: Array) -> Any:
    """A column of lists, from as many numbers as `lengths` says."""
    import pyarrow

    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(ends, np.concatenate(values).astype(np.int32))
