"""The task's own metric of a model that is in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distill.training import processes
from edge.embeddings.encoder import SentenceEncoder
from edge.models.inputs import accepted
from edge.tasks import Outputs, Task
from edge.tasks.base import Examples
from edge.tokenization import Tokenizer

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Judge:
    """Gives the name and the value of a task's main metric for any model of that task.

    joint: measures models that read both texts of a row at once, where the task's reads one.
    """

    task: Task
    examples: Examples
    tokenizer: Tokenizer
    joint: Judge | None = None

    def __call__(self, model: Any) -> tuple[str, float]:
        """The model's mode is put back afterwards."""
        if self.joint is not None and not isinstance(model, SentenceEncoder):
            return self.joint(model)
        training = model.training
        model.eval()
        encodings = self.examples.encodings
        outputs: list[Outputs] = [{} for _ in encodings]
        order = np.argsort([len(encoding) for encoding in encodings], kind="stable")
        try:
            for start in range(0, len(order), _BATCH_SIZE):
                rows = order[start : start + _BATCH_SIZE].tolist()
                for row, found in zip(rows, self._run(model, rows), strict=True):
                    outputs[row] = found
        finally:
            model.train(training)
        return next(iter(self.examples.score(outputs).items()))

    def _run(self, model: Any, rows: list[int]) -> list[Outputs]:
        encodings = [self.examples.encodings[row] for row in rows]
        columns = self.tokenizer.pad(encodings, max(map(len, encodings)))
        inputs = {
            name: torch.from_numpy(column).long().to(model.device)
            for name, column in columns.items()
        }
        with torch.inference_mode():
            heads = self.task.heads(model(**accepted(model, inputs)), inputs["attention_mask"])
        arrays = {name: value.float().cpu().numpy() for name, value in heads.items()}
        return [
            self.task.trim(arrays, index, len(encoding)) for index, encoding in enumerate(encodings)
        ]


def measure(judge: Judge, model: Any) -> tuple[str, float]:
    """What a judge says of a model, measured in the main process for all."""
    found: tuple[str, float] = processes.from_main(lambda: judge(model))
    return found
