"""How long a text an architecture's positions allow, in tokens."""

from __future__ import annotations

import functools
import json
from typing import Any

from edge.models import register

# What `_table` reads off a model: rows of its table of positions, and those before a first token's.
_Table = tuple[int, int]


def unused_positions(config: Any, architecture: str | None = None) -> int:
    """How many of the positions that a configuration has room for come before the first token's.

    architecture: one that is given the same padding; by default the configuration's own.
    """
    if architecture not in (None, config.model_type):
        from transformers import AutoConfig

        register(str(architecture))
        config = AutoConfig.for_model(architecture, pad_token_id=config.pad_token_id)
    table = _table(config)
    return table[1] if table else 0


def longest_text(config: Any) -> int | None:
    """The longest text that has a position for each token; None where positions set no limit."""
    room = getattr(config, "max_position_embeddings", None)
    limits = [] if room is None or room <= 0 else [room - unused_positions(config)]
    table = _table(config)
    if table:
        limits.append(table[0] - table[1])
    return min(limits, default=None)


def _table(config: Any) -> _Table | None:
    """Rows of the table of positions and how many no token uses; None for models without one.

    RoBERTa and its kin count positions from the padding index of that table + 1.
    """
    try:
        key = json.dumps(config.to_dict(), sort_keys=True, default=str)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    return _built_table(key, str(config.model_type))


@functools.lru_cache(maxsize=64)
def _built_table(config_json: str, architecture: str) -> _Table | None:
    """The same, read off a model whose weights take no memory."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        values = {key: v for key, v in json.loads(config_json).items() if key != "model_type"}
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.for_model(architecture, **values))
    except Exception:  # a configuration of which no model can be made is refused where it is loaded
        return None
    tables = (
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ("position_embeddings", "position_embedding")
        and getattr(module, "weight", None) is not None
    )
    table = next(tables, None)
    if table is None:
        return None
    padding = getattr(table, "padding_idx", None)
    return int(table.weight.shape[0]), 0 if padding is None else int(padding) + 1
