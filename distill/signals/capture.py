"""Running an encoder so that what it computes inside can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from distill.signals.attention import Attention, recording
from edge.errors import TrainingError
from edge.models.inputs import accepted

Inputs = Mapping[str, Tensor]
States = dict[int, Tensor]

# Every answer of a task's head that can be compared, by the names of Transformers and edge.tasks.
OUTPUTS = ("logits", "start_logits", "end_logits", "sentence_embedding")
HIDDEN_STATES = "hidden_states"
SCORES = "attention_scores"
RELATED = ("queries", "keys", "values")
FEATURES = "features"


class Need(NamedTuple):
    """One thing to capture: a field of Signals and a layer, from 1; 0 is the embeddings.

    Features are no layer's and count as 0.
    """

    field: str
    layer: int


Needs = frozenset[Need]


class Signals(NamedTuple):
    """What a model says about one batch: plain tensors by layer, and only what was asked for.

    outputs: the head's answers by name, e.g. "logits" (B, C). hidden_states: each layer's output,
    (B, L, H), 0 being the embeddings. attention_scores: before the softmax, (B, heads, L, L);
    padding is not masked. queries, keys, values: (B, heads, L, d). attended: for layers that see
    a part of the text, where they look, (B, 1, L, L). features: what the last linear layer of the
    task's head reads, (B, F) or (B, L, F), under 0.
    """

    outputs: dict[str, Tensor]
    hidden_states: States = {}
    attention_scores: States = {}
    queries: States = {}
    keys: States = {}
    values: States = {}
    attended: States = {}
    features: States = {}

    def detach(self) -> Signals:
        """The same values, through which no gradient flows."""
        still: list[Any] = [{key: x.detach() for key, x in part.items()} for part in self]
        return Signals(*still)


class Source(Protocol):
    """Where the teacher's signals come from: a live model, or what it said before."""

    def __call__(self, inputs: Inputs) -> Signals: ...


def capture(model: Any, inputs: Inputs, needs: Needs) -> Signals:
    """The model's answers and what `needs` names, with gradients where they are enabled.

    Attention runs in SDPA; scores are computed beside it for the layers that need them. Raises
    TrainingError when the model does not give what each of its layers should, as an architecture
    that ignores `output_hidden_states` would: a loss over an empty tuple is silently 0.
    """
    read = frozenset(need for need in needs if need.field == FEATURES)
    if not read:
        return _captured(model, inputs, needs)
    found: list[Tensor] = []
    hook = answer_layer(model).register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        signals = _captured(model, inputs, needs - read)
    finally:
        hook.remove()
    return signals._replace(features={0: found[-1]})


def answer_layer(model: Any) -> nn.Linear:
    """The linear layer that gives a task's answers: the last one outside the encoder."""
    inside = set(model.base_model.modules())
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside]
    if not found:
        raise TrainingError(
            f"{type(model).__name__} has no linear layer that answers: use a recipe without "
            "features"
        )
    return found[-1]


def _captured(model: Any, inputs: Inputs, needs: Needs) -> Signals:
    looks = _layers(needs, {SCORES, *RELATED})
    if not looks:
        output = _run(model, inputs, hidden_states=bool(needs))
        return Signals(_answers(model, output), _hidden_states(model, output, needs))
    stated = _layers(needs, {HIDDEN_STATES})
    with recording(model, looks) as recorder:
        output = _run(model, inputs, hidden_states=bool(stated))
    _check_count(model, recorder.count, model.config.num_hidden_layers, "attentions")
    return Signals(
        _answers(model, output),
        _hidden_states(model, output, needs),
        **_attentions(recorder.found, needs),
    )


class LiveTeacher:
    """A teacher that is asked again for every batch, in eval mode and without gradients."""

    def __init__(self, model: Any, needs: Needs) -> None:
        self.model = model.eval().requires_grad_(False)
        self._needs = needs

    def __call__(self, inputs: Inputs) -> Signals:
        device = inputs["input_ids"].device
        if self.model.device != device:
            self.model.to(device)
        # no_grad and not inference_mode: the student's backward pass keeps these tensors.
        with torch.no_grad():
            return capture(self.model.eval(), inputs, self._needs)


def _run(model: Any, inputs: Inputs, *, hidden_states: bool) -> Any:
    return model(**accepted(model, inputs), output_hidden_states=hidden_states)


def _answers(model: Any, output: Any) -> dict[str, Tensor]:
    found = {name: output[name] for name in OUTPUTS if output.get(name) is not None}
    if not found:
        raise TrainingError(
            f"{model.config.model_type} gives no answer to compare: it needs the head of a task"
        )
    return found


def _hidden_states(model: Any, output: Any, needs: Needs) -> States:
    wanted = _layers(needs, {HIDDEN_STATES})
    if not wanted:
        return {}
    states = output.get("hidden_states") or ()
    _check_count(model, len(states), model.config.num_hidden_layers + 1, "hidden states")
    return {layer: states[layer] for layer in sorted(wanted)}


def _attentions(found: dict[int, Attention], needs: Needs) -> dict[str, States]:
    read = {SCORES: "scores", "queries": "query", "keys": "key", "values": "value"}
    signals: dict[str, States] = {"attended": {}}
    for layer, attention in found.items():
        for name, attribute in read.items():
            if Need(name, layer) in needs:
                signals.setdefault(name, {})[layer] = getattr(attention, attribute)
        if attention.attended is not None:
            signals["attended"][layer] = attention.attended
    return signals


def _check_count(model: Any, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise TrainingError(
            f"{model.config.model_type} gives {found} {what} where its "
            f"{model.config.num_hidden_layers} layers should give {expected}: "
            f"use a recipe without {what}"
        )


def _layers(needs: Iterable[Need], fields: set[str]) -> frozenset[int]:
    return frozenset(need.layer for need in needs if need.field in fields)
