"""Registries that map names to MODULE:ATTRIBUTE, imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edge.errors import unknown_name


def look_up(kind: str, name: str, registry: Mapping[str, str]) -> Any:
    """Return the object that `registry` gives for a name as MODULE:ATTRIBUTE.

    kind: the noun in the error, such as "engine". Raises
    ConfigError with the nearest name for an unknown one.
    """
    if name not in registry:
        raise unknown_name(kind, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
