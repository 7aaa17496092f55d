"""The interface of tasks: model outputs, predictions and metrics."""

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

# Larger files are not read for an early check.
_LARGE_BYTES = 64_000_000
Array = npt.NDArray[Any]
# One sample's outputs by name, without batch dimension and without padding.
Outputs = dict[str, Array]


@dataclass(frozen=True)
class Examples:
    """The inputs of an evaluation: the encoded rows of a data file, and their scoring.

    score: takes an iterable of the outputs of `encodings`, in order, and returns the task's metrics
    by name, the main one first; higher is better for all of them.
    """

    encodings: list[Encoding]
    score: Callable[[Iterable[Outputs]], dict[str, float]]


@dataclass(frozen=True)
class Queries:
    """The inputs of a prediction; a text may need several encodings, and a pair may need one.

    answers: takes an iterable of the outputs of `encodings`, in order, and returns a
    JSON-compatible prediction for each text.
    """

    encodings: list[Encoding]
    answers: Callable[[Iterable[Outputs]], list[dict[str, Any]]]


class Task(ABC):
    """One task.

    labels: the class names in the order of the logits, or None. pairs: True if the
    model reads two texts as one input, False if it reads one, None if unknown.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]
    # Output name -> symbolic shape.
    outputs: ClassVar[dict[str, tuple[str | int, ...]]]
    takes_pairs: ClassVar[bool] = False
    # Apps measure distances between outputs, so small errors matter.
    compares_vectors: ClassVar[bool] = False
    # The columns of its data files.
    layout: ClassVar[Layout] = TEXTS
    # The columns of its training files, if they need fewer.
    training: ClassVar[Layout | None] = None
    activation: Activation = "none"
    similarity: Similarity = "cosine"

    def __init__(self, labels: tuple[str, ...] | None, problem_type: str | None) -> None:
        self.labels = labels
        self.problem_type = problem_type
        self.pairs: bool | None = None

    def heads(self, output: Any, attention_mask: Any) -> dict[str, Any]:
        """Return named float tensors from a Transformers model output.

        Both the exported graph and the reference checkpoint use this function.
        """
        return {name: output[name] for name in self.outputs}

    def trim(self, outputs: dict[str, Array], row: int, tokens: int) -> Outputs:
        """Return one sample of a batch of outputs, without padding after its `tokens` tokens."""
        trimmed = {}
        for name, value in outputs.items():
            sample = value[row]
            per_token = "sequence" in self.outputs[name]
            trimmed[name] = sample[:tokens] if per_token else sample
        return trimmed

    @abstractmethod
    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        """Return the discrete answer to compare with the checkpoint's, or None."""

    @abstractmethod
    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the prediction for one sample, JSON-compatible."""

    def queries(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        tokenizer: Tokenizer,
        *,
        max_length: int,
    ) -> Queries:
        """Encode texts or pairs, in at most `max_length` tokens each, for prediction.

        Raises ConfigError for pairs if the model reads one text, or for single texts if it reads
        pairs.
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
        """Read a data file of this task by `edge.data.read_table`; raises DataError for others."""
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
        """Read a local file of moderate size, to report mistakes before a model is loaded.

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
        """Set `pairs` from `table` if it is unknown."""
        if self.name == "text-classification" and self.pairs is None:
            self.pairs = table.pairs is not None

    def read_training(self, source: str | Path, *, columns: Columns | None = None) -> Table:
        """Read a training file of this task; raises DataError for others."""
        layout = self.training or self.layout
        return read_table(source, columns=columns, layout=layout, pairs=self.pairs)

    def inputs(self, table: Table) -> list[tuple[str, str | None]]:
        """Return the model's inputs for the rows: texts, pairs, or the single texts of pairs."""
        if table.pairs is None:
            return [(text, None) for text in table.texts]
        rows = list(zip(table.texts, table.pairs, strict=True))
        if self.takes_pairs:
            return [(text, pair) for text, pair in rows]
        return [(text, None) for row in rows for text in row]

    @abstractmethod
    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Encode the rows, in at most `max_length` tokens each, for evaluation.

        Raises DataError when the table does not fit the task or its labels.
        """

    def column(self, table: Table) -> TargetColumn | None:
        """Interpret the target column of a table; None without a column.

        Raises DataError, naming the row, if they do not fit.
        """
        return None

    def targets(self, table: Table) -> Array:
        """Return one target per row in the metric's form; raises DataError if they do not fit."""
        column = self.column(table)
        if column is None:
            raise self.no_targets(table)
        values: Array = column.values
        return values

    def no_targets(self, table: Table) -> DataError:
        """Return the error for a task without a single target per row."""
        return DataError(f"{table.source}: {self.name} has no single target a row to train on")

    def metric(self, outputs: Sequence[Outputs], targets: Array) -> tuple[str, float]:
        """Return name and value of the task's metric over all samples."""
        raise NotImplementedError  # unreachable: targets() refuses first

    def unfit(self, table: Table, problem: str) -> DataError:
        """Return the error for a table that does not fit this task."""
        return DataError(f"{table.source}: {problem}; {self.layout.expects}")


def in_pieces(
    encodings: Iterable[Encoding], max_length: int, overlap: float
) -> tuple[list[Encoding], list[int]]:
    """Split encodings into windows of `max_length` tokens; returns windows and their row numbers.

    overlap: the fraction of a window that the next one repeats.
    """
    pieces: list[Encoding] = []
    rows: list[int] = []
    for row, encoding in enumerate(encodings):
        windows = encoding.windows(max_length, int(max_length * overlap))
        pieces += windows
        rows += [row] * len(windows)
    return pieces, rows


def softmax(logits: Array) -> Array:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def stable_sigmoid(logits: Array) -> Array:
    """Sigmoid in float64, without overflow."""
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return result


def activated(logits: Array, activation: Activation) -> Array:
    """Apply an activation to logits over the last axis, in float64."""
    if activation == "softmax":
        return softmax(logits)
    return stable_sigmoid(logits) if activation == "sigmoid" else logits.astype(np.float64)


def numbers(table: Table) -> Array:
    """Return targets as finite numbers (N,); raises DataError, naming the row, for others."""
    values: Array = score_column(table).values
    return values
