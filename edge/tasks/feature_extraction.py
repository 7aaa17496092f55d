"""Sentence embeddings: one vector a text, made inside the graph, see `edge.embedding`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge.data import Layout, Table
from edge.metrics import pearson, spearman
from edge.tasks.base import Array, Examples, Outputs, Task, numbers
from edge.tokenization import Encoding, Tokenizer


class FeatureExtraction(Task):
    """One vector a text."""

    name = "feature-extraction"
    auto_class = "AutoModel"
    # Not "embedding": that name collides with a node in the ONNX exporter.
    outputs = {"sentence_embedding": ("batch", "hidden")}
    layout = Layout(
        text=("sentence1", "text", "sentence"),
        pair=("sentence2", "text_pair"),
        target=("score", "label", "similarity"),
        pair_needed=True,
        expects="feature-extraction needs two texts and their similarity in each row, as in STS-B",
    )

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        return None

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"embedding": [float(value) for value in outputs["sentence_embedding"]]}

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Each text runs alone; the cosine of two is held against their similarity."""
        if table.pairs is None or table.targets is None:
            raise self.unfit(table, "there are no pairs with similarities")
        targets = numbers(table)
        texts = [*table.texts, *table.pairs]

        def score(outputs: Iterable[Outputs]) -> dict[str, float]:
            vectors = np.stack([output["sentence_embedding"] for output in outputs])
            vectors = vectors.astype(np.float64)
            lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
            first, second = np.split(vectors / lengths, 2)
            cosines = (first * second).sum(-1)
            return {"spearman": spearman(cosines, targets), "pearson": pearson(cosines, targets)}

        return Examples(tokenizer.encode(texts, max_length=max_length), score)
