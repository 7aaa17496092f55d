"""Class names in the schemas of files that `datasets` wrote."""

from __future__ import annotations

import json
from typing import Any


def schema_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names of columns from a Parquet schema written by `datasets`."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        class_names = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in class_names.items() if names}


def _names(feature: Any) -> tuple[str, ...] | None:
    """Return the class names of a feature: a ClassLabel, or a list of them."""
    if isinstance(feature, list):
        return _names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and names and isinstance(names, list):
        return tuple(map(str, names))
    return _names(feature["feature"]) if "feature" in feature else None
