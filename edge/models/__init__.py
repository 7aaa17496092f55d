"""Models of this project's own, in the form in which Transformers loads and saves its own."""

from __future__ import annotations

import importlib

# model_type of a config.json -> module, imported on use.
MODELS = {"bilstm": "edge.models.bilstm", "cnn": "edge.models.cnn", "sum": "edge.models.total"}


def register(model_type: str) -> bool:
    """Make Transformers' Auto classes know `model_type`; False when it is none of ours."""
    if model_type not in MODELS:
        return False
    importlib.import_module(MODELS[model_type]).register()
    return True
