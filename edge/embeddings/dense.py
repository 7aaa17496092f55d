"""The dense layers after pooling, with the weights of their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge.embeddings.head import WEIGHTS, Projection, SentenceHead
from edge.errors import CheckpointError

_PICKLE = "pytorch_model.bin"


def dense_layers(head: SentenceHead, *, allow_pickle: bool) -> list[tuple[nn.Linear, str]]:
    """Return the dense layers after pooling, each with its activation's name in `torch.nn`.

    Raises CheckpointError as `sentence_encoder` does.
    """
    return [(_load_layer(p, allow_pickle), p.activation) for p in head.projections]


def _load_layer(projection: Projection, allow_pickle: bool) -> nn.Linear:
    weights = _weights(projection.folder, allow_pickle)
    try:
        layer = _layer(projection, weights)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{projection.folder}: weights do not fit: {reason}") from None
    if not all(bool(torch.isfinite(value).all()) for value in layer.parameters()):
        raise CheckpointError(f"{projection.folder}: weights hold values that are not finite")
    return layer


def _weights(folder: Path, allow_pickle: bool) -> dict[str, Any]:
    if (folder / WEIGHTS).is_file():
        try:
            return load_file(folder / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / WEIGHTS} is corrupted ({error})") from None
    if not (folder / _PICKLE).is_file():
        raise CheckpointError(f"{folder} has no weights ({WEIGHTS})")
    if not allow_pickle:
        raise CheckpointError(
            f"{folder} has pickled weights only, which can run code when loaded: convert them to "
            "safetensors, or pass --allow-pickle if you trust their source"
        )
    try:
        weights: dict[str, Any] = torch.load(
            folder / _PICKLE, map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises many classes here, all about this file
        raise CheckpointError(f"{folder / _PICKLE} is corrupted ({type(error).__name__})") from None
    return weights


def _layer(projection: Projection, weights: dict[str, Tensor]) -> nn.Linear:
    """Return the layer that a folder describes; raises RuntimeError for weights that do not fit."""
    layer = nn.Linear(*projection.sizes, bias=projection.bias)
    layer.load_state_dict(
        {name.removeprefix("linear."): value.float() for name, value in weights.items()}
    )
    return layer
