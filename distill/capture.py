"""Running an encoder so that what it computes inside can be compared."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from edge.errors import TrainingError

Inputs = Mapping[str, Tensor]


class Signals(NamedTuple):
    """What a model says about one batch.

    logits: (B, C). hidden_states: the embeddings, then each layer's output, all (B, L, H); None
    unless asked for.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class Source(Protocol):
    """Where the teacher's signals come from: a live model, or what it said before."""

    def __call__(self, inputs: Inputs) -> Signals: ...


def capture(model: Any, inputs: Inputs, needs: frozenset[str]) -> Signals:
    """The signals named in `needs` (fields of Signals), with gradients where they are enabled.

    Raises TrainingError when the model does not give one state a layer, as an architecture that
    ignores `output_hidden_states` would: a loss over an empty tuple is silently 0.
    """
    wanted = "hidden_states" in needs
    output = model(**accepted(model, inputs), output_hidden_states=wanted)
    states = output.hidden_states if wanted else None
    layers = model.config.num_hidden_layers
    if wanted and (states is None or len(states) != layers + 1):
        raise TrainingError(
            f"{model.config.model_type} gives {len(states or ())} hidden states where its "
            f"{layers} layers should give {layers + 1}: use a recipe without hidden states"
        )
    return Signals(output.logits, None if states is None else tuple(states))


class LiveTeacher:
    """A teacher that is asked again for every batch, in eval mode and without gradients."""

    def __init__(self, model: Any, needs: frozenset[str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self._needs = needs

    def __call__(self, inputs: Inputs) -> Signals:
        device = inputs["input_ids"].device
        if self.model.device != device:
            self.model.to(device)
        # no_grad and not inference_mode: the student's backward pass keeps these tensors.
        with torch.no_grad():
            return capture(self.model.eval(), inputs, self._needs)


def accepted(model: Any, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs this architecture reads; others would be swallowed without a word."""
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in known}
