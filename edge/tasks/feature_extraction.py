"""Sentence embeddings: one vector per text, computed in the graph; see `edge.embeddings.head`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge.bundle.manifest import Similarity
from edge.data import Layout, Table, TargetColumn
from edge.data.table import PAIRS
from edge.data.targets import score_column
from edge.metrics import ndcg, pearson, reciprocal_rank, spearman
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import Array, Examples, Outputs, Queries, Task, numbers
from edge.tokenization import Encoding, Tokenizer


class FeatureExtraction(Task):
    """One embedding per text."""

    name = "feature-extraction"
    auto_class = "AutoModel"
    compares_vectors = True
    outputs = TASK_OUTPUTS[name]
    layout = Layout(
        text=("sentence1", "text", "sentence", "query", "question"),
        pair=("sentence2", "text_pair", "passage", "document"),
        pairs=PAIRS,
        target=("score", "label", "similarity"),
        pair_needed=True,
        expects="feature-extraction needs two texts and their similarity in each row, as in STS-B",
    )
    training = replace(
        layout,
        pair_needed=False,
        target_needed=False,
        expects="feature-extraction learns from texts, or from pairs of them in each row",
    )

    def column(self, table: Table) -> TargetColumn | None:
        return None if table.targets is None else score_column(table)

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        return None

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"embedding": [float(value) for value in outputs["sentence_embedding"]]}

    def queries(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        tokenizer: Tokenizer,
        *,
        max_length: int,
    ) -> Queries:
        """Encode each text by itself; `similarity` is to its pair, or else to the first text."""
        encodings = tokenizer.encode([*texts, *(pairs or ())], max_length=max_length)

        def answers(outputs: Iterable[Outputs]) -> list[dict[str, Any]]:
            vectors = np.stack([output["sentence_embedding"] for output in outputs])
            first = vectors[: len(texts)]
            second = vectors[len(texts) :] if pairs is not None else first[:1].repeat(len(first), 0)
            predictions: list[dict[str, Any]] = [{"embedding": vector.tolist()} for vector in first]
            if len(vectors) > 1:
                values = similarities(first, second, self.similarity)
                for answer, value in zip(predictions, values, strict=True):
                    answer["similarity"] = float(value)
            return predictions

        return Queries(encodings, answers)

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Encode each text by itself; similarities of embeddings are compared with the targets."""
        if table.pairs is None or table.targets is None:
            raise self.unfit(table, "there are no pairs with similarities")
        targets = numbers(table)
        texts = [*table.texts, *table.pairs]

        def score(outputs: Iterable[Outputs]) -> dict[str, float]:
            vectors = np.stack([output["sentence_embedding"] for output in outputs])
            first, second = np.split(vectors, 2)
            return agreement(similarities(first, second, self.similarity), targets, table.texts)

        return Examples(tokenizer.encode(texts, max_length=max_length), score)


def agreement(scores: Array, targets: Array, questions: list[str]) -> dict[str, float]:
    """Return metrics of scores of pairs (N,) against their similarities (N,), the main one first.

    questions: the first text of each pair. If there are several questions, each with more than one
    second text, ranking metrics come first: ndcg_at_10 and mrr, means over questions. A question
    whose targets are all equal has no ranking and is skipped.
    """
    metrics = {"spearman": spearman(scores, targets), "pearson": pearson(scores, targets)}
    _, number, counts = np.unique(
        np.asarray(questions, object), return_inverse=True, return_counts=True
    )
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.cumsum(counts)[:-1])
    ranked = [rows for rows in groups if np.ptp(targets[rows]) > 0]
    if len(groups) < 2 or counts.min() < 2 or not ranked:
        return metrics
    # Gains count from 0.
    gains = targets - min(0.0, float(targets.min()))
    ranking = {
        "ndcg_at_10": float(np.mean([ndcg(scores[rows], gains[rows]) for rows in ranked])),
        "mrr": float(np.mean([reciprocal_rank(scores[rows], gains[rows]) for rows in ranked])),
    }
    return {**ranking, **metrics}


def similarities(first: Array, second: Array, similarity: Similarity) -> Array:
    """Return the similarity of two vectors per row, (N, size) both, to (N,).

    Distances are negated.
    """
    if similarity == "cosine":
        return _cosines(first, second)
    first, second = first.astype(np.float64), second.astype(np.float64)
    order = {"euclidean": 2, "manhattan": 1}
    result: Array = (
        (first * second).sum(-1)
        if similarity == "dot"
        else -np.linalg.norm(first - second, ord=order[similarity], axis=-1)
    )
    return result


def _cosines(first: Array, second: Array) -> Array:
    """Return the cosine of two vectors per row, (N, size) both, to (N,)."""

    def direction(vectors: Array) -> Array:
        vectors = vectors.astype(np.float64)
        lengths: Array = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)

    cosines: Array = (direction(first) * direction(second)).sum(-1)
    return cosines
