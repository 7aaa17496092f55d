"""Masked language modeling: prediction of the tokens at [MASK]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge.data import Layout, Table
from edge.errors import ConfigError
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import Array, Examples, Outputs, Queries, Task, softmax
from edge.tokenization import Encoding, Tokenizer

_TOP = 5
# Devlin et al. 2019, section 3.1; all selected tokens are masked, with a fixed seed.
_MASKED_SHARE = 0.15
_SEED = 0


class FillMask(Task):
    """A logit for every token of the vocabulary at every position."""

    name = "fill-mask"
    auto_class = "AutoModelForMaskedLM"
    outputs = TASK_OUTPUTS[name]
    activation = "softmax"
    layout = Layout(
        pair=(), target=(), expects="fill-mask needs a text in each row, or a .txt file of lines"
    )

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        answer: Array = outputs["logits"].argmax(-1)
        return answer

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        mask = tokenizer.info.mask_token_id
        masks = []
        for position in np.flatnonzero(np.asarray(encoding.input_ids) == mask):
            probabilities = softmax(outputs["logits"][position])
            best = np.argsort(-probabilities)[:_TOP]
            choices = [
                {"token": tokenizer.token(int(i)), "score": float(probabilities[i])} for i in best
            ]
            masks.append({"position": int(position), "choices": choices})
        return {"masks": masks}

    def queries(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        tokenizer: Tokenizer,
        *,
        max_length: int,
    ) -> Queries:
        """Encode texts for prediction; raises ConfigError for a text without a mask token."""
        queries = super().queries(texts, pairs, tokenizer, max_length=max_length)
        mask = tokenizer.info.mask_token_id
        if mask is None:
            raise ConfigError("the tokenizer has no mask token, so there is nothing to predict")
        for number, encoding in enumerate(queries.encodings, start=1):
            if mask not in encoding.input_ids:
                cut = f" among the first {max_length} tokens" if encoding.cut else ""
                raise ConfigError(
                    f"text {number} has no {tokenizer.token(mask)}{cut}, so there is nothing to "
                    "predict: write it where a word is missing"
                )
        return queries

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Mask 15% of the tokens of each text, the same ones in every run, as targets."""
        mask = tokenizer.info.mask_token_id
        if mask is None:
            raise self.unfit(table, "the tokenizer has no mask token")
        encodings: list[Encoding] = []
        masked: list[tuple[Array, Array]] = []
        for row, encoding in enumerate(tokenizer.encode(table.texts, max_length=max_length)):
            ids = np.asarray(encoding.input_ids)
            real = np.flatnonzero(~np.asarray(encoding.special, bool))
            if not len(real):
                continue
            count = max(1, round(_MASKED_SHARE * len(real)))
            source = np.random.default_rng((_SEED, row))
            chosen = np.sort(source.choice(real, count, replace=False))
            masked.append((chosen, ids[chosen]))
            ids[chosen] = mask
            encodings.append(replace(encoding, input_ids=ids.tolist()))
        if not encodings:
            raise self.unfit(table, "every text is empty")
        return Examples(encodings, lambda outputs: _scores(outputs, masked))


def _scores(outputs: Iterable[Outputs], masked: list[tuple[Array, Array]]) -> dict[str, float]:
    """Return accuracy and mean log-likelihood (natural logarithm) of the masked tokens."""
    right, logarithms = [], []
    for output, (positions, ids) in zip(outputs, masked, strict=True):
        logits = output["logits"][positions].astype(np.float64)
        top = logits.max(-1)
        chosen = logits[np.arange(len(ids)), ids]
        right.append(logits.argmax(-1) == ids)
        logarithms.append(chosen - top - np.log(np.exp(logits - top[:, None]).sum(-1)))
    return {
        "masked_accuracy": float(np.mean(np.concatenate(right))),
        "log_likelihood": float(np.mean(np.concatenate(logarithms))),
    }
