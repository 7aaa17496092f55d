"""Sequence classification: single label, several labels, or regression; texts or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.data import Layout, Table, TargetColumn
from edge.data.table import PAIRS
from edge.data.targets import class_column, label_sets, score_column
from edge.metrics import accuracy, micro_f1, pearson
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import (
    Array,
    Examples,
    Outputs,
    Task,
    activated,
)
from edge.tokenization import Encoding, Tokenizer

REGRESSION = "regression"
MULTI_LABEL = "multi_label_classification"
SINGLE_LABEL = "single_label_classification"


class TextClassification(Task):
    """One row of logits per text."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    outputs = TASK_OUTPUTS[name]
    takes_pairs = True
    layout = Layout(
        pairs=PAIRS, expects="text-classification needs a text, or two, and a label in each row"
    )

    def __init__(self, labels: tuple[str, ...] | None, problem_type: str | None) -> None:
        default = REGRESSION if labels is not None and len(labels) == 1 else SINGLE_LABEL
        super().__init__(labels, problem_type or default)
        if self.problem_type == SINGLE_LABEL:
            self.activation = "softmax"
        elif self.problem_type == MULTI_LABEL:
            self.activation = "sigmoid"

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        logits = outputs["logits"]
        if self.problem_type == REGRESSION:
            return None
        return logits > 0 if self.problem_type == MULTI_LABEL else np.argmax(logits, keepdims=True)

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        logits = outputs["logits"]
        names = self.labels or tuple(str(i) for i in range(len(logits)))
        answers = activated(logits, self.activation)
        if self.problem_type == REGRESSION:
            return {"score": float(answers[0])}
        scores = {name: float(answer) for name, answer in zip(names, answers, strict=True)}
        if self.problem_type == MULTI_LABEL:
            chosen = [name for name, logit in zip(names, logits, strict=True) if logit > 0]
            return {"labels": chosen, "scores": scores}
        best = names[int(np.argmax(logits))]
        return {"label": best, "score": scores[best], "scores": scores}

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        if table.targets is None:
            raise self.unfit(table, "there are no labels")
        targets = self.targets(table)
        encodings = tokenizer.encode(table.texts, table.pairs, max_length=max_length)
        return Examples(encodings, lambda outputs: dict([self.metric(list(outputs), targets)]))

    def column(self, table: Table) -> TargetColumn:
        if self.problem_type == REGRESSION:
            return score_column(table)
        if self.problem_type == MULTI_LABEL:
            return label_sets(table, self.labels)
        return class_column(table, self.labels)

    def metric(self, outputs: Sequence[Outputs], targets: Array) -> tuple[str, float]:
        logits = np.stack([sample["logits"] for sample in outputs])
        if self.problem_type == REGRESSION:
            return "pearson", pearson(activated(logits, self.activation)[:, 0], targets)
        if self.problem_type == MULTI_LABEL:
            return "micro_f1", micro_f1((logits > 0).astype(np.int64), targets)
        return "accuracy", accuracy(logits.argmax(-1), targets)
