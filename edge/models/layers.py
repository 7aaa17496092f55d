"""The stack of layers of an encoder, and what a shallower one of the same kind looks like."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any


def layer_prefix(model: Any) -> str | None:
    """The name of the list of layers, e.g. `bert.encoder.layer`; None where layers share one."""
    from torch import nn

    depth = model.config.num_hidden_layers
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [name for name in lists if not any(name.startswith(f"{o}.") for o in lists)]
    return outer[0] if len(outer) == 1 else None


def states_of(output: Any) -> Any:
    """The states that a layer gave, which some architectures put first of several."""
    return output[0] if isinstance(output, tuple) else output


def with_layers(config: Any, layers: Sequence[int]) -> Any:
    """A copy of a configuration that keeps these layers, counted from 0."""
    config = copy.deepcopy(config)
    total = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        # A setting for each layer, such as ModernBERT's `layer_types`.
        if "layer" in name and isinstance(value, list) and len(value) == total:
            setattr(config, name, [value[i % total] for i in layers])
    config.num_hidden_layers = len(layers)
    return config
