"""The torch module of a sentence encoder: an encoder with pooling, dense layers, normalization."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from edge.embeddings.dense import dense_layers
from edge.embeddings.head import (
    LAYERS_OF,
    MODULES_FILE,
    PROMPTS_FILE,
    WEIGHTS,
    SentenceHead,
)

_PREFIX = "sentence_transformers.models"
# Size of the mask that excludes a prompt, if the encoder has no limit on positions.
_MAX_POSITIONS = 4096


class SentenceEncoder(nn.Module):
    """An encoder with output {"sentence_embedding": (batch, size)}.

    layers: any number of dense layers after pooling, each with the name of its activation.
    """

    def __init__(
        self, encoder: Any, head: SentenceHead, layers: Sequence[tuple[nn.Linear, str]]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.description = head
        self.counted: Tensor
        self._activations = [activation for _, activation in layers]
        self.head = nn.Sequential(
            *(nn.Sequential(layer, getattr(nn, name)()) for layer, name in layers)
        )
        if head.skipped:
            longest = getattr(encoder.config, "max_position_embeddings", None) or _MAX_POSITIONS
            # Sliced like the encoder's own position table, which every exporter supports.
            counted = (torch.arange(longest) >= head.skipped).to(torch.long)[None]
            self.register_buffer("counted", counted, persistent=False)

    @property
    def config(self) -> Any:
        """The configuration of the encoder."""
        return self.encoder.config

    @property
    def base_model(self) -> Any:
        """The encoder, which computes the hidden states."""
        return self.encoder

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def layers(self) -> list[tuple[nn.Linear, str]]:
        """The dense layers, and the activation of each by its name in `torch.nn`."""
        dense = [part[0] for part in self.head if isinstance(part, nn.Sequential)]
        return [(d, n) for d, n in zip(dense, self._activations, strict=True)]  # type: ignore[misc]

    @property
    def size(self) -> int:
        """The dimension of a text's embedding."""
        layers = self.layers
        return layers[-1][0].out_features if layers else int(self.config.hidden_size)

    def get_input_embeddings(self) -> Any:
        return self.encoder.get_input_embeddings()

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Return the embedding of each text, and the hidden states if requested."""
        states = self.encoder(**inputs)
        vector = self.head(self.pool(states["last_hidden_state"], inputs["attention_mask"]))
        answer = {"sentence_embedding": unit(vector) if self.description.normalize else vector}
        if inputs.get("output_hidden_states"):
            answer["hidden_states"] = states["hidden_states"]
        return answer

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool hidden states: (batch, sequence, hidden) -> (batch, hidden)."""
        if self.description.skipped:
            mask = mask * self.counted[:, : mask.shape[1]].to(mask.dtype)
        return (_first if self.description.pooling == "cls" else _mean)(states, mask)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder and the other modules in the layout of sentence-transformers."""
        folder = Path(folder)
        self.encoder.save_pretrained(folder)
        kinds = ["Transformer", "Pooling", *["Dense"] * len(self.layers)]
        kinds += ["Normalize"] if self.description.normalize else []
        paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds[1:], 1))]
        for path in paths[1:]:
            (folder / path).mkdir(exist_ok=True)
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"{_PREFIX}.{kind}"}
            for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ]
        _write(folder / MODULES_FILE, modules)
        if self.description.max_length is not None:
            limit = {"max_seq_length": self.description.max_length, "do_lower_case": False}
            _write(folder / "sentence_bert_config.json", limit)
        if self.description.prompt or self.description.similarity != "cosine":
            _write(folder / PROMPTS_FILE, _prompts(self.description))
        _write(folder / paths[1] / "config.json", _pooling(self.description, self.config))
        for path, (layer, activation) in zip(paths[2:], self.layers, strict=False):
            _save_layer(folder / path, layer, activation)


def sentence_encoder(encoder: Any, head: SentenceHead, *, allow_pickle: bool) -> SentenceEncoder:
    """Return the encoder with its head, answering {"sentence_embedding": (batch, size)}.

    Raises CheckpointError for projections without weights, or with weights that do not fit.
    """
    return SentenceEncoder(encoder, head, dense_layers(head, allow_pickle=allow_pickle))


def unit(vector: Tensor) -> Tensor:
    """Scale vectors (batch, size) to length 1; zero vectors stay zero.

    In 16-bit floats, squares of values above 255 overflow and those of values below 2e-4 underflow.
    After division by the largest value, the sum of squares is between 1 and `size`.
    """
    largest = vector.abs().amax(1, keepdim=True)
    scaled = vector / largest.clamp(min=1e-4)
    return scaled / (scaled * scaled).sum(1, keepdim=True).sqrt().clamp(min=1e-4)


def _first(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of the first token: (batch, sequence, hidden) -> (batch, hidden)."""
    return states[:, 0]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens: (batch, sequence, hidden) -> (batch, hidden)."""
    weights = mask.to(states.dtype)
    # Dividing first keeps the sum small enough for 16-bit floats.
    weights = weights / weights.sum(1, keepdim=True)
    return (states * weights[:, :, None]).sum(1)


def _pooling(head: SentenceHead, config: Any) -> dict[str, Any]:
    modes = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    chosen = {name: pooling == head.pooling for name, pooling in modes.items()}
    include = {} if head.include_prompt else {"include_prompt": False}
    return {"word_embedding_dimension": config.hidden_size, **chosen, **include}


def _prompts(head: SentenceHead) -> dict[str, Any]:
    return {
        "prompts": {"default": head.prompt} if head.prompt else {},
        "default_prompt_name": "default" if head.prompt else None,
        "similarity_fn_name": head.similarity,
    }


def _save_layer(folder: Path, layer: nn.Linear, activation: str) -> None:
    values = {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias is not None,
        "activation_function": f"torch.nn.modules.{LAYERS_OF[activation]}.{activation}",
    }
    _write(folder / "config.json", values)
    weights = {f"linear.{k}": v.detach().cpu().contiguous() for k, v in layer.state_dict().items()}
    safetensors.torch.save_file(weights, str(folder / WEIGHTS))


def _write(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
