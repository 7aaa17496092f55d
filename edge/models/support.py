"""Which architectures can be an encoder here, decided by their configuration and class alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from edge.errors import CheckpointError
from edge.models import MODELS
from edge.signature import INPUT_NAMES

# What a model reads beside a text's tokens, and would be told nothing of.
_OTHER_INPUTS = {
    "bbox": "the place of each word on a page",
    "xpath_tags_seq": "the place of each word in a web page",
    "input_shape_ids": "the shape of each character",
    "pixel_values": "an image",
    "image": "an image",
    "visual_embeds": "an image",
    "input_features": "sound",
    "input_values": "sound",
}
# model_type -> why no artifact can answer as the checkpoint does.
_REFUSED = {
    "canine": "it reads characters, not tokens",
    "fnet": "its Fourier transform mixes padding into the text",
    "funnel": "it joins tokens two by two and cannot read short texts",
    "longformer": "its attention in windows decides by the values in a tensor",
    "nystromformer": "its approximation of attention depends on padding",
    "perceiver": "it reads bytes, not tokens",
    "reformer": "its attention by hashes is random",
    "tapas": "it reads tables",
    "yoso": "its attention by hashes is random",
}


def check_architecture(config: Any, auto_class: str, *, where: str) -> None:
    """Raise CheckpointError for an architecture that is no encoder of texts, or lacks the task.

    auto_class: of Transformers, for the task.
    """
    name = config.model_type
    if name in _REFUSED:
        raise CheckpointError(f"{where}: '{name}' is not supported: {_REFUSED[name]}")
    if config.is_encoder_decoder or getattr(config, "is_decoder", False) or _only_decodes(name):
        raise CheckpointError(f"{where}: '{name}' has a decoder; only encoders are supported")
    model = model_class(config, auto_class)
    if model is None:
        raise CheckpointError(
            f"{where}: '{name}' has no {auto_class.removeprefix('AutoModel') or 'encoder'} in "
            "Transformers: choose another --task"
        )
    inputs = set(inspect.signature(model.forward).parameters)
    others = [meaning for key, meaning in _OTHER_INPUTS.items() if key in inputs]
    if others:
        raise CheckpointError(f"{where}: '{name}' is not supported: it also reads {others[0]}")
    if "input_ids" not in inputs and not any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(model.forward).parameters.values()
    ):
        raise CheckpointError(f"{where}: '{name}' is not supported: it reads no tokens of a text")


def model_class(config: Any, auto_class: str) -> Any:
    """The class that a checkpoint's model is of; None where Transformers has none."""
    import transformers

    try:
        found = getattr(transformers, auto_class)._model_mapping[type(config)]
    except KeyError:
        return None
    return found[0] if isinstance(found, (tuple, list)) else found


def declared_settings(config: Any) -> set[str]:
    """The keys of config.json that the configuration's own class declares, so its model reads."""
    declared = {field.name for field in fields(config)} if is_dataclass(config) else set()
    return declared | set(config.attribute_map) | {"model_type"}


def read_settings(config: Any, auto_class: str) -> set[str]:
    """The declared keys, and those that the code of the model asks for though none declares them.

    DeBERTa-v2's relative positions are such: `getattr(config, "position_buckets", -1)`.
    """
    model = model_class(config, auto_class)
    try:
        source = "" if model is None else inspect.getsource(inspect.getmodule(model) or model)
    except (OSError, TypeError):
        source = ""
    return declared_settings(config) | set(re.findall(r"""config, ["'](\w+)["']""", source))


def reads_token_types(config: Any, auto_class: str) -> bool:
    """Whether a model tells a text from its pair; some tokenizers offer it without need."""
    types = getattr(config, "type_vocab_size", None)
    if types is not None:
        return bool(types > 1)
    model = model_class(config, auto_class)
    return model is not None and "token_type_ids" in inspect.signature(model.forward).parameters


def unread_inputs(names: Iterable[str], config: Any, auto_class: str) -> list[str]:
    """Inputs that a tokenizer fills and the model reads, of which artifacts know nothing."""
    model = model_class(config, auto_class)
    accepted = set() if model is None else set(inspect.signature(model.forward).parameters)
    return [name for name in names if name in accepted and name not in INPUT_NAMES]


def _only_decodes(name: str) -> bool:
    """Whether an architecture writes texts from left to right and never guesses masked tokens."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if name in MODELS or name in ("xlnet", "bert-generation"):
        return False
    return (
        name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
