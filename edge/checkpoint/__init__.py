"""Transformers folders: opened, checked, loaded and saved."""

from edge.checkpoint.checkpoint import (
    PAIRS_KEY,
    Checkpoint,
    count_parameters,
    counted_head,
    glance,
    has_token_types,
    load_model,
    load_tokenizer,
    locate,
    max_length,
    open_checkpoint,
    save_checkpoint,
    share_weights,
)

__all__ = [
    "PAIRS_KEY",
    "Checkpoint",
    "count_parameters",
    "counted_head",
    "glance",
    "has_token_types",
    "load_model",
    "load_tokenizer",
    "locate",
    "max_length",
    "open_checkpoint",
    "save_checkpoint",
    "share_weights",
]
