"""How long a text an architecture's positions allow, in tokens."""

from __future__ import annotations

from typing import Any

# They count positions from the padding index + 1.
_FROM_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet"}


def unused_positions(config: Any, architecture: str | None = None) -> int:
    """How many of the positions that a configuration has room for come before the first token's.

    architecture: one that is given the same padding; by default the configuration's own.
    """
    counts = (architecture or config.model_type) in _FROM_PADDING
    return (config.pad_token_id or 0) + 1 if counts else 0


def longest_text(config: Any) -> int | None:
    """The longest text that has a position for each token; None where positions set no limit."""
    room = getattr(config, "max_position_embeddings", None)
    return None if room is None or room <= 0 else room - unused_positions(config)
