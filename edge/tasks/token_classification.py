"""One label a token, e.g. named entities."""

from __future__ import annotations

from typing import Any

from edge.tasks.base import Array, Outputs, Task, softmax
from edge.tokenization import Encoding, Tokenizer


class TokenClassification(Task):
    """Logits for every token."""

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    outputs = {"logits": ("batch", "sequence", "labels")}
    activation = "softmax"

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        answer: Array = outputs["logits"].argmax(-1)
        return answer

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        chances = softmax(outputs["logits"])
        best = chances.argmax(-1)
        names = self.labels or tuple(str(i) for i in range(chances.shape[-1]))
        tokens = []
        for position, index in enumerate(encoding.input_ids[: len(best)]):
            if encoding.special and encoding.special[position]:
                continue
            label = int(best[position])
            record: dict[str, Any] = {"token": tokenizer.token(index), "label": names[label]}
            record["score"] = float(chances[position, label])
            if encoding.offsets:
                record["start"], record["end"] = encoding.offsets[position]
            tokens.append(record)
        return {"tokens": tokens}
