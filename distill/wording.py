"""Teachers and a student that read the same texts in different tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.batches import ROWS, Row, Samples
from distill.reading import READINGS
from distill.terms import Name, TaughtTerm
from edge.errors import ConfigError

# What compares one text with itself or with others, never token by token.
_WHOLE = ("logits", "margin", "contrastive", "features")


class WordedSamples(Samples):
    """Rows that others read in tokens of their own: batches have NAME.input_ids and so on too."""

    def __init__(self, samples: Samples, others: Mapping[Name, Samples]) -> None:
        super().__init__(samples.encodings, samples.targets, samples._tokenizer)
        self.block = samples.block
        self._samples, self._others = samples, dict(others)

    def set_epoch(self, epoch: int) -> None:
        self._samples.set_epoch(epoch)

    def read_by(self, name: Name) -> Samples:
        return self._others.get(name, self)

    def __getitem__(self, index: int) -> Row:
        return self._samples[index]

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        batch = self._samples.collate(rows)
        for name, other in self._others.items():
            found = other.collate([other[index] for index, _, _ in rows])
            found.pop("labels")
            batch |= {f"{name}.{key}": value for key, value in found.items()}
            batch[f"{name}.{ROWS}"] = torch.as_tensor([index for index, _, _ in rows])
        return batch


def of_whole_texts(term: TaughtTerm, task: str) -> TaughtTerm:
    """The term for a student that reads other tokens than its teacher.

    Hidden states are compared by their mean where the term leaves open by what. Raises ConfigError
    for a term that compares token by token.
    """
    if term.match == "parameters":  # of weights, which read no text
        return term
    values: Any = term
    if getattr(values, "tokens", "all") is None:
        values = term.model_copy(update={"tokens": "mean"})
    reading = READINGS[task]
    whole = not (reading.per_token or reading.over_tokens)
    if not whole or (term.match not in _WHOLE and getattr(values, "tokens", "all") == "all"):
        raise ConfigError(
            f"match: {term.match} compares token by token, and the student reads other tokens than "
            "its teacher: use match: logits, or hidden_states with tokens: mean"
        )
    found: TaughtTerm = values
    return found
