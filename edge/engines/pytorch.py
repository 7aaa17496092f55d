"""PyTorch on a Transformers checkpoint, the reference for every other engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.checkpoint import load_model, open_checkpoint
from edge.console import hush
from edge.engines.base import Array, Availability, Engine, Session, installed


class PyTorch(Engine):
    """Run a checkpoint folder with Transformers, float32, SDPA attention."""

    name = "pytorch"
    format = "checkpoint"
    module = "transformers.modeling_utils"

    def availability(self) -> Availability:
        return installed("torch", "torch")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        with hush():
            import torch

            torch.set_num_threads(threads)
            checkpoint = open_checkpoint(path)
            return ModelSession(load_model(checkpoint), checkpoint.task)


class ModelSession(Session):
    """A loaded Transformers model with the interface of the other engines."""

    def __init__(self, model: Any, task: Any) -> None:
        self._model = model
        self._task = task

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        tensors = {name: torch.from_numpy(value).long() for name, value in inputs.items()}
        with torch.inference_mode():
            output = self._model(**tensors)
            heads = self._task.heads(output, tensors["attention_mask"])
        return {name: value.numpy() for name, value in heads.items()}

    def close(self) -> None:
        self._model = None
