"""Names, types and shapes of a model's inputs and outputs."""

from __future__ import annotations

from edge.config import Config

# Task, by Transformers' name -> output name -> symbolic shape.
TASK_OUTPUTS: dict[str, dict[str, tuple[str | int, ...]]] = {
    "text-classification": {"logits": ("batch", "labels")},
    "token-classification": {"logits": ("batch", "sequence", "labels")},
    "question-answering": {
        "start_logits": ("batch", "sequence"),
        "end_logits": ("batch", "sequence"),
    },
    "fill-mask": {"logits": ("batch", "sequence", "vocabulary")},
    # Not "embedding": that name collides with a node in the ONNX exporter.
    "feature-extraction": {"sentence_embedding": ("batch", "hidden")},
}
# An encoder's inputs under the names Transformers gives them, all int32 of shape (batch, sequence).
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
# Tokens; shorter inputs are padded. Exporters treat a length of 1 as a constant, and the trigrams
# of some embeddings a length of 2.
SHORTEST_LENGTH = 4


class TensorSpec(Config):
    """One input or output. A dimension that may vary is a name: "batch" or "sequence"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def input_specs(names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """Return the specs of an encoder's inputs."""
    return tuple(TensorSpec(name=n, dtype="int32", shape=("batch", "sequence")) for n in names)
