"""The task's own metric of a model that is in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from distill.batches import Samples
from distill.capture import accepted
from edge.tasks import Outputs, Task

_BATCH_SIZE = 64


def score(model: Any, task: Task, samples: Samples) -> tuple[str, float]:
    """Metric name and value over `samples`; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    outputs: list[Outputs] = [{} for _ in range(len(samples))]
    order = np.argsort(samples.lengths, kind="stable")
    try:
        for start in range(0, len(order), _BATCH_SIZE):
            rows = order[start : start + _BATCH_SIZE]
            for row, found in zip(rows, _run(model, task, samples, rows), strict=True):
                outputs[row] = found
    finally:
        model.train(training)
    return task.metric(outputs, samples.targets)


def _run(model: Any, task: Task, samples: Samples, rows: Any) -> list[Outputs]:
    batch = samples.collate([samples[row] for row in rows])
    del batch["labels"]
    inputs = {name: value.to(model.device) for name, value in batch.items()}
    with torch.inference_mode():
        heads = task.heads(model(**accepted(model, inputs)), inputs["attention_mask"])
    arrays = {name: value.float().cpu().numpy() for name, value in heads.items()}
    return [task.trim(arrays, index, len(samples.encodings[row])) for index, row in enumerate(rows)]
