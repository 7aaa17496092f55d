"""What every task answers: which outputs, which answers, which metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.bundle.manifest import Activation, Similarity
from edge.data import TEXTS, Columns, Layout, Table, TargetColumn, read_table
from edge.data.hub import is_local
from edge.data.targets import score_column
from edge.errors import ConfigError, DataError
from edge.tokenization import Encoding, Tokenizer

# Files above are read once only.
_LARGE_BYTES = 64_000_000
Array = npt.NDArray[Any]
# One sample's outputs by name, without batch dimension and without padding.
Outputs = dict[str, Array]


@dataclass(frozen=True)
class Examples:
    """What to run to learn how good a model is: the rows of a data file as a task runs them.

    score: takes the outputs of `encodings` in their order, one by one, and returns the task's
    metrics by name, the main one first; more is better for all of them.
    """

    encodings: list[Encoding]
    score: Callable[[Iterable[Outputs]], dict[str, float]]


@dataclass(frozen=True)
class Queries:
    """What to run to answer texts, which may take several runs a text, or one for two texts.

    answers: takes the outputs of `encodings` in their order, one by one, and returns what a person
    wants to read of each text, JSON-ready.
    """

    encodings: list[Encoding]
    answers: Callable[[Iterable[Outputs]], list[dict[str, Any]]]


class Task(ABC):
    """One task.

    labels: the class names in the order of the logits, or None. pairs: whether the model reads
    two texts as one input, or one; None where nothing tells.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]
    # Output name -> symbolic shape.
    outputs: ClassVar[dict[str, tuple[str | int, ...]]]
    takes_pairs: ClassVar[bool] = False
    # Whether apps measure distances between outputs, so that every digit of them counts.
    compares_vectors: ClassVar[bool] = False
    # The columns of its data files.
    layout: ClassVar[Layout] = TEXTS
    # The same of files to learn from, where less will do.
    training: ClassVar[Layout | None] = None
    activation: Activation = "none"
    similarity: Similarity = "cosine"

    def __init__(self, labels: tuple[str, ...] | None, problem_type: str | None) -> None:
        self.labels = labels
        self.problem_type = problem_type
        self.pairs: bool | None = None

    def heads(self, output: Any, attention_mask: Any) -> dict[str, Any]:
        """Named float tensors from a Transformers model output.

        The same function serves the exported graph and the checkpoint it is compared with.
        """
        return {name: output[name] for name in self.outputs}

    def trim(self, outputs: dict[str, Array], row: int, tokens: int) -> Outputs:
        """One sample of a batch of outputs, cut to its `tokens` real tokens."""
        trimmed = {}
        for name, value in outputs.items():
            sample = value[row]
            per_token = "sequence" in self.outputs[name]
            trimmed[name] = sample[:tokens] if per_token else sample
        return trimmed

    @abstractmethod
    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        """The discrete answer compared between artifact and checkpoint; None when there is none."""

    @abstractmethod
    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        """What a person wants to read, JSON-ready."""

    def queries(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        tokenizer: Tokenizer,
        *,
        max_length: int,
    ) -> Queries:
        """Texts, or pairs of them, as runs of at most `max_length` tokens, and their answers.

        Raises ConfigError for pairs where the task reads one text, or the other way round.
        """
        if pairs is not None and not self.takes_pairs:
            raise ConfigError(f"{self.name} takes one text, not a pair")
        if self.takes_pairs and self.pairs is not None and self.pairs != (pairs is not None):
            raise ConfigError(
                "the model reads pairs of texts: give each text a second one (--text-pair)"
                if self.pairs
                else "the model reads one text, not a pair: leave out the second texts"
            )
        encodings = tokenizer.encode(texts, pairs, max_length=max_length)

        def answers(outputs: Iterable[Outputs]) -> list[dict[str, Any]]:
            return [
                self.predict(output, encoding, tokenizer)
                for output, encoding in zip(outputs, encodings, strict=True)
            ]

        return Queries(encodings, answers)

    def read(
        self, source: str | Path, *, columns: Columns | None = None, targets: bool = True
    ) -> Table:
        """A data file of this task; raises DataError for another's. See `edge.data.read_table`."""
        return read_table(
            source, columns=columns, targets=targets, layout=self.layout, pairs=self.pairs
        )

    def check_file(
        self,
        source: str | Path,
        *,
        columns: Columns | None = None,
        targets: bool = True,
        training: bool = False,
    ) -> None:
        """Read a local file of moderate size, so that a mistake is told before anything is loaded.

        Raises DataError as `read` does, or `read_training`.
        """
        path = Path(source)
        if not (is_local(str(source)) and path.suffix) or path.is_dir():
            return
        if path.is_file() and path.stat().st_size > _LARGE_BYTES:
            return
        if training:
            self.read_training(source, columns=columns)
        else:
            self.read(source, columns=columns, targets=targets)

    def note_pairs(self, table: Table) -> None:
        """Take texts or pairs for what the model reads, as `table` has them, if nothing tells."""
        if self.name == "text-classification" and self.pairs is None:
            self.pairs = table.pairs is not None

    def read_training(self, source: str | Path, *, columns: Columns | None = None) -> Table:
        """A data file to learn from; raises DataError for another task's."""
        layout = self.training or self.layout
        return read_table(source, columns=columns, layout=layout, pairs=self.pairs)

    def inputs(self, table: Table) -> list[tuple[str, str | None]]:
        """What the rows are to the model: pairs, or both texts one by one where it reads one."""
        if table.pairs is None:
            return [(text, None) for text in table.texts]
        rows = list(zip(table.texts, table.pairs, strict=True))
        if self.takes_pairs:
            return [(text, pair) for text, pair in rows]
        return [(text, None) for row in rows for text in row]

    @abstractmethod
    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """The rows as runs of at most `max_length` tokens, and the score of their outputs.

        Raises DataError when the table does not fit the task or its labels.
        """

    def column(self, table: Table) -> TargetColumn | None:
        """What the targets of a table are, decided for the whole column; None without a column.

        Raises DataError, naming the row, if they do not fit.
        """
        return None

    def targets(self, table: Table) -> Array:
        """One target a row in the metric's form; raises DataError if they do not fit."""
        column = self.column(table)
        if column is None:
            raise self.no_targets(table)
        values: Array = column.values
        return values

    def no_targets(self, table: Table) -> DataError:
        """The error where a row has no single target."""
        return DataError(f"{table.source}: {self.name} has no single target a row to train on")

    def metric(self, outputs: Sequence[Outputs], targets: Array) -> tuple[str, float]:
        """Name and value of the task's metric over all samples."""
        raise NotImplementedError  # unreachable: targets() refuses first

    def unfit(self, table: Table, problem: str) -> DataError:
        """The error for a table that another task may read, but not this one."""
        return DataError(f"{table.source}: {problem}; {self.layout.expects}")


def in_pieces(
    encodings: Iterable[Encoding], max_length: int, overlap: float
) -> tuple[list[Encoding], list[int]]:
    """Encodings cut to `max_length` tokens, and the row that each piece is from.

    overlap: the share of a piece that the next one repeats.
    """
    pieces: list[Encoding] = []
    rows: list[int] = []
    for row, encoding in enumerate(encodings):
        own = encoding.windows(max_length, int(max_length * overlap))
        pieces += own
        rows += [row] * len(own)
    return pieces, rows


def softmax(logits: Array) -> Array:
    """Over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def stable_sigmoid(logits: Array) -> Array:
    """In float64, without overflow."""
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return result


def activated(logits: Array, activation: Activation) -> Array:
    """Logits as the answer that a person reads, over the last axis, in float64."""
    if activation == "softmax":
        return softmax(logits)
    return stable_sigmoid(logits) if activation == "sigmoid" else logits.astype(np.float64)


def numbers(table: Table) -> Array:
    """Targets as finite numbers (N,); raises DataError, naming the row, for anything else."""
    values: Array = score_column(table).values
    return values
