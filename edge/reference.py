"""Reference outputs: the unpatched checkpoint run on one text at a time, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edge.bundle import GoldenCase
from edge.checkpoint import Checkpoint, has_token_types, load_model, load_tokenizer
from edge.engines.base import Array
from edge.engines.pytorch import ModelSession
from edge.errors import CheckpointError
from edge.tasks import Outputs
from edge.tokenization import Encoding, Tokenizer, describe

# A text, or a pair of texts.
Text = tuple[str, str | None]


class Reference:
    """A checkpoint with the interface of `edge.engines.runner.Runner`.

    model: the result of `load_model`, if already loaded.
    """

    def __init__(self, checkpoint: Checkpoint, model: Any = None) -> None:
        text, info = describe(load_tokenizer(checkpoint), folder=checkpoint.path)
        inputs = tuple(n for n in info.inputs if n != "token_type_ids")
        if not has_token_types(checkpoint):
            info = info.model_copy(update={"inputs": inputs})
        self.tokenizer = Tokenizer.from_text(text, info)
        self.task = checkpoint.task
        self._session = ModelSession(
            load_model(checkpoint) if model is None else model, checkpoint.task
        )

    def infer(self, encodings: Iterable[Encoding]) -> Iterator[Outputs]:
        """Yield the outputs of each encoding, run at its own length."""
        for encoding in encodings:
            inputs = self.tokenizer.pad([encoding], len(encoding))
            yield self.task.trim(self._session.run(inputs), 0, len(encoding))


def golden_cases(
    checkpoint: Checkpoint,
    model: Any,
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    inputs: Sequence[str],
    length: int,
) -> list[GoldenCase]:
    """Return the golden cases of texts or pairs from the checkpoint's own tokenizer and model.

    inputs: names of the model's inputs. length: maximum number of tokens.
    Raises CheckpointError when the model's outputs are not finite or the same for every text.
    """
    session = ModelSession(model, checkpoint.task)
    if checkpoint.task.name == "fill-mask":
        texts = _masked(texts, tokenizer)
    cases = []
    for text, pair in texts:
        encoded = tokenizer(text, pair, truncation="longest_first", max_length=length)
        arrays = {name: np.asarray([_ids(encoded, name)], np.int32) for name in inputs}
        try:
            outputs = session.run(arrays)
        except Exception as error:  # each library has its own, and all are about this checkpoint
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{checkpoint.source} ({checkpoint.config.model_type}) cannot read "
                f"{text[:40]!r}, {len(arrays['input_ids'][0])} tokens: {reason}"
            ) from error
        tokens = arrays["input_ids"].shape[1]
        typed = "token_type_ids" in inputs
        cases.append(
            GoldenCase(
                text=text,
                text_pair=pair,
                input_ids=arrays["input_ids"][0].tolist(),
                token_type_ids=arrays["token_type_ids"][0].tolist() if typed else None,
                outputs=checkpoint.task.trim(outputs, 0, tokens),
            )
        )
    _check(checkpoint, cases)
    return cases


def _ids(encoded: Any, name: str) -> list[int]:
    ids: list[int] = encoded.get(name) or [0] * len(encoded["input_ids"])
    return ids


def _masked(texts: Sequence[Text], tokenizer: Any) -> list[Text]:
    """Return the texts with the second word masked, unless they already contain the mask token."""
    masked_texts: list[Text] = []
    for text, _ in texts:
        words = text.split() or [""]
        masked = " ".join([words[0], tokenizer.mask_token, *words[2:]])
        masked_texts.append((text if tokenizer.mask_token in text else masked, None))
    return masked_texts


def _check(checkpoint: Checkpoint, cases: list[GoldenCase]) -> None:
    for name in checkpoint.task.outputs:
        values: list[Array] = [case.outputs[name] for case in cases]
        if not all(np.isfinite(value).all() for value in values):
            raise CheckpointError(f"{checkpoint.source}: output '{name}' is not finite")
        first = values[0].ravel()[:1]
        if all(np.allclose(value, first, rtol=0, atol=1e-12) for value in values):
            raise CheckpointError(
                f"{checkpoint.source}: output '{name}' is the same for every text: the checkpoint "
                "is not trained or is damaged"
            )
