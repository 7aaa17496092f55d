"""Sentence embeddings: the mean of the last hidden states over real tokens."""

from __future__ import annotations

from typing import Any

from edge.tasks.base import Array, Outputs, Task
from edge.tokenization import Encoding, Tokenizer


class FeatureExtraction(Task):
    """One vector a text."""

    name = "feature-extraction"
    auto_class = "AutoModel"
    # Not "embedding": that name collides with a node in the ONNX exporter.
    outputs = {"sentence_embedding": ("batch", "hidden")}

    def heads(self, output: Any, attention_mask: Any) -> dict[str, Any]:
        """Mean pooling, (batch, sequence, hidden) -> (batch, hidden)."""
        hidden = output["last_hidden_state"]
        weights = attention_mask[:, :, None].to(hidden.dtype)
        return {"sentence_embedding": (hidden * weights).sum(1) / weights.sum(1)}

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        return None

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"embedding": [float(value) for value in outputs["sentence_embedding"]]}
