"""Masked language modelling: which token stands where [MASK] is."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.tasks.base import Array, Outputs, Task, softmax
from edge.tokenization import Encoding, Tokenizer

_TOP = 5


class FillMask(Task):
    """A logit for every token of the vocabulary at every position."""

    name = "fill-mask"
    auto_class = "AutoModelForMaskedLM"
    outputs = {"logits": ("batch", "sequence", "vocabulary")}
    activation = "softmax"

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        answer: Array = outputs["logits"].argmax(-1)
        return answer

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        mask = tokenizer.info.mask_token_id
        found = []
        for position in np.flatnonzero(np.asarray(encoding.input_ids) == mask):
            chances = softmax(outputs["logits"][position])
            best = np.argsort(-chances)[:_TOP]
            choices = [{"token": tokenizer.token(int(i)), "score": float(chances[i])} for i in best]
            found.append({"position": int(position), "choices": choices})
        return {"masks": found}
