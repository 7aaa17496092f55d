"""Data like the app's: what activations are measured on, and what a metric budget is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.base import Inputs
from converters.config import ConvertConfig
from edge.data import Table
from edge.tasks import Task
from edge.tasks.base import Examples
from edge.tasks.summary import say_understood
from edge.tokenization import Encoding, Tokenizer


@dataclass(frozen=True)
class Calibration:
    """Texts of the calibration file; with labels, also the score of their outputs."""

    encodings: list[Encoding]
    examples: Examples | None
    samples: int


def read_calibration(
    config: ConvertConfig, task: Task, tokenizer: Tokenizer, *, max_length: int
) -> Calibration | None:
    """The first `calibration_count` rows of `config.calibration`; None when there is no file.

    Labels are needed for a metric budget only. Raises DataError when the file is of another task,
    has labels that the checkpoint does not know, or lacks those that are needed.
    """
    if config.calibration is None:
        return None
    labelled = config.max_drop is not None
    table = task.read(config.calibration, columns=config.columns, targets=labelled)
    table = table.head(config.calibration_count)
    task.note_pairs(table)
    if not labelled and table.targets is None:
        encodings = encode_inputs(task, table, tokenizer, max_length=max_length)
        say_understood(task, table, encodings, max_length=max_length)
        return Calibration(encodings, None, len(table))
    # Labels that are there and do not fit tell that the data is of another task.
    examples = task.examples(table, tokenizer, max_length=max_length)
    say_understood(task, table, examples.encodings, max_length=max_length)
    return Calibration(examples.encodings, examples, len(table))


def encode_inputs(
    task: Task, table: Table, tokenizer: Tokenizer, *, max_length: int
) -> list[Encoding]:
    """The inputs that a table's rows are to the task's model, truncated to `max_length` tokens."""
    texts, pairs = zip(*task.inputs(table), strict=True)
    seconds = None if None in pairs else [str(pair) for pair in pairs]
    return tokenizer.encode(texts, seconds, max_length=max_length)


def model_inputs(
    calibration: Calibration | None, tokenizer: Tokenizer, names: Sequence[str]
) -> tuple[Inputs, ...]:
    """Each text as a model's inputs, int32 (1, n) without padding; none without calibration."""
    found = []
    for encoding in calibration.encodings if calibration else ():
        inputs = tokenizer.pad([encoding], len(encoding))
        found.append({name: inputs[name] for name in names})
    return tuple(found)
