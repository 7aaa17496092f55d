"""Models of this project's own, in the form in which Transformers loads and saves its own."""

from __future__ import annotations

from edge.registry import look_up

# model_type of a config.json -> function that registers its classes, imported on use.
MODELS = {
    "bilstm": "edge.models.bilstm:register",
    "cnn": "edge.models.cnn:register",
    "sum": "edge.models.total:register",
}


def register(model_type: str) -> bool:
    """Make Transformers' Auto classes know `model_type`; False when it is none of ours."""
    if model_type not in MODELS:
        return False
    look_up("architecture", model_type, MODELS)()
    return True
