"""Terms between teachers and a student that read the same texts in different tokens."""

from __future__ import annotations

from typing import Any

from distill.recipe.terms import TaughtTerm
from distill.signals.outputs import Reading
from edge.errors import ConfigError

# What compares one text with itself or with others, never token by token.
_WHOLE = ("logits", "margin", "contrastive", "features")


def of_whole_texts(term: TaughtTerm, reading: Reading) -> TaughtTerm:
    """The term for a student that reads other tokens than its teacher.

    Hidden states are compared by their mean where the term leaves open by what. Raises ConfigError
    for a term that compares token by token.
    """
    if term.match == "parameters":  # of weights, which read no text
        return term
    values: Any = term
    if getattr(values, "tokens", "all") is None:
        values = term.model_copy(update={"tokens": "mean"})
    if not reading.whole or (
        term.match not in _WHOLE and getattr(values, "tokens", "all") == "all"
    ):
        raise ConfigError(
            f"match: {term.match} compares token by token, and the student reads other tokens than "
            "its teacher: use match: logits, or hidden_states with tokens: mean"
        )
    found: TaughtTerm = values
    return found
