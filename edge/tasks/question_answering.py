"""Extractive question answering: the text is the question, its pair the context."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.tasks.base import Array, Outputs, Task
from edge.tokenization import Encoding, Tokenizer

_MAX_ANSWER_TOKENS = 30


class QuestionAnswering(Task):
    """A start and an end logit for every token."""

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    outputs = {"start_logits": ("batch", "sequence"), "end_logits": ("batch", "sequence")}
    takes_pairs = True

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        return np.asarray([outputs["start_logits"].argmax(), outputs["end_logits"].argmax()])

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        start, end, score = best_span(outputs["start_logits"], outputs["end_logits"], encoding)
        span: dict[str, Any] = {"start_token": start, "end_token": end, "score": score}
        if encoding.offsets:
            span["start"], span["end"] = encoding.offsets[start][0], encoding.offsets[end][1]
        return span


def best_span(start: Array, end: Array, encoding: Encoding) -> tuple[int, int, float]:
    """The span in the second part with the highest start + end logit, at most 30 tokens long."""
    types = encoding.token_type_ids or [1] * len(encoding)
    special = encoding.special or [False] * len(encoding)
    inside = [bool(t) and not s for t, s in zip(types, special, strict=True)]
    allowed = np.asarray(inside[: len(start)])
    if not allowed.any():
        return 0, 0, float(start[0] + end[0])
    pairs = start[:, None] + end[None, :]
    count = len(start)
    span = np.arange(count)[None, :] - np.arange(count)[:, None]
    valid = allowed[:, None] & allowed[None, :] & (span >= 0) & (span < _MAX_ANSWER_TOKENS)
    index = int(np.where(valid, pairs, -np.inf).argmax())
    first, last = divmod(index, count)
    return first, last, float(pairs[first, last])
