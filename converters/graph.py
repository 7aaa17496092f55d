"""One export-friendly view of every encoder, the same small graph for all converters."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from converters.first_token import FirstToken, find_cut
from converters.padding import ZeroedPadding
from edge.models.recurrence import prepare_export
from edge.signature import SHORTEST_LENGTH
from edge.tasks import Task

# Vanishes after softmax and still fits 16-bit floats; -1e9 overflows them, -10 leaks attention.
MASKED = -1e4


class ExportView(nn.Module):
    """A checkpoint's model with 2-D int32 inputs and the task's named outputs.

    Where no output reads another token, its last layer computes the first one only.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        prepare_export(model)
        self.model = model
        self._task = task
        with exportable_masks():
            self._cut = find_cut(functools.partial(self._outputs, _probe(model)))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """All inputs (batch, sequence); outputs as `Task.heads` names them."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        return self._outputs(inputs, FirstToken(self._cut))

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """While active, every token is computed, so that modules may be hooked."""
        cut, self._cut = self._cut, None
        try:
            yield
        finally:
            self._cut = cut

    def _outputs(
        self, inputs: dict[str, torch.Tensor], first: FirstToken
    ) -> dict[str, torch.Tensor]:
        mask = inputs["attention_mask"]
        with ZeroedPadding(mask), first:
            outputs = self._task.heads(self.model(**inputs), mask)
        return first.require_whole(outputs)


def sample_inputs(
    names: tuple[str, ...], length: int, *, batch: int = 1
) -> dict[str, torch.Tensor]:
    """Inputs to trace with, int32 (batch, length); half of each row is padding."""
    inputs = {name: torch.ones(batch, length, dtype=torch.int32) for name in names}
    inputs["attention_mask"][:, length // 2 :] = 0
    if "token_type_ids" in inputs:
        inputs["token_type_ids"].zero_()
    return inputs


def _probe(model: nn.Module) -> dict[str, torch.Tensor]:
    """Two texts of different tokens, the second one shorter."""
    known = getattr(getattr(model, "config", None), "vocab_size", None)
    ids = torch.arange(2, 2 + 2 * SHORTEST_LENGTH, dtype=torch.int32) % (known or 8)
    ids = ids.reshape(2, SHORTEST_LENGTH)
    mask = torch.ones_like(ids)
    mask[1, -1] = 0
    return {"input_ids": ids, "attention_mask": mask}


@contextlib.contextmanager
def exportable_masks() -> Iterator[None]:
    """While tracing, Transformers builds its attention masks as plain additive floats.

    Its own masks use operators that Core ML lacks and old TFLite runtimes cannot load.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as registry

    mapping = registry._global_mapping
    saved = {name: mapping[name] for name in ("eager", "sdpa")}
    try:
        for name in saved:
            mapping[name] = _additive_mask
        with torch.no_grad():
            yield
    finally:
        mapping.update(saved)


def _additive_mask(
    *, attention_mask: torch.Tensor, local_size: int | None = None, **_: Any
) -> torch.Tensor:
    """(batch, sequence) of 0 and 1 -> (batch, 1, 1 or sequence, sequence) of 0 and MASKED."""
    mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED
    if local_size is None:
        return mask
    positions = torch.arange(attention_mask.shape[-1], dtype=torch.int32)
    distance = (positions[None, :] - positions[:, None]).abs()
    far = (distance > local_size).to(torch.float32) * MASKED
    return torch.clamp(mask + far[None, None], min=MASKED)
