"""What every task answers: which outputs, which answers, which metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edge.data import Table
from edge.errors import DataError
from edge.tokenization import Encoding, Tokenizer

Array = npt.NDArray[Any]
# One sample's outputs by name, without batch dimension and without padding.
Outputs = dict[str, Array]


class Task(ABC):
    """One task. labels: the class names in the order of the logits, or None."""

    name: ClassVar[str]
    auto_class: ClassVar[str]
    # Output name -> symbolic shape.
    outputs: ClassVar[dict[str, tuple[str | int, ...]]]
    takes_pairs: ClassVar[bool] = False
    activation: Literal["softmax", "sigmoid", "none"] = "none"

    def __init__(self, labels: tuple[str, ...] | None, problem_type: str | None) -> None:
        self.labels = labels
        self.problem_type = problem_type

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

    def targets(self, table: Table) -> Array:
        """The targets of a data file in the metric's form; raises DataError if they do not fit."""
        raise DataError(
            f"{table.source}: evaluating {self.name} on a data file of texts and labels is not "
            "possible: its targets are not one value a row"
        )

    def metric(self, outputs: Sequence[Outputs], targets: Array) -> tuple[str, float]:
        """Name and value of the task's metric over all samples."""
        raise NotImplementedError  # unreachable: targets() refuses first


def softmax(logits: Array) -> Array:
    """Over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def stable_sigmoid(logits: Array) -> Array:
    """In float64, without overflow."""
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return result


def label_indices(table: Table, labels: tuple[str, ...] | None, count: int) -> Array:
    """Targets as class indices: integers as they are, names looked up in `labels`.

    Raises DataError for a label outside the checkpoint's label set.
    """
    names = {name: index for index, name in enumerate(labels or ())}
    if table.target_names:
        return _by_name([table.target_names[int(t)] for t in table.targets or []], names, table)
    found = []
    for number, value in enumerate(table.targets or [], start=1):
        index = names.get(str(value))
        if index is None and _is_integer(value):
            index = int(value)
        if index is None or not 0 <= index < count:
            raise DataError(
                f"{table.source} row {number}: label {value!r} is not one of the checkpoint's "
                f"{count} labels ({', '.join(names) or 'unnamed'})"
            )
        found.append(index)
    return np.asarray(found, np.int64)


def _by_name(values: list[str], names: dict[str, int], table: Table) -> Array:
    """Class names of the data set to the checkpoint's indices; positions when names differ."""
    lowered = {name.lower(): index for name, index in names.items()}
    if all(value.lower() in lowered for value in values):
        return np.asarray([lowered[value.lower()] for value in values], np.int64)
    if table.target_names is not None and len(table.target_names) == len(names):
        position = {name: index for index, name in enumerate(table.target_names)}
        return np.asarray([position[value] for value in values], np.int64)
    raise DataError(
        f"{table.source}: classes {', '.join(table.target_names or ())} do not match the "
        f"checkpoint's labels {', '.join(names)}"
    )


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lstrip("-").isdigit()
    return isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
