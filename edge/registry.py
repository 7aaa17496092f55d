"""Registries: names and where what they stand for is found, imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edge.errors import unknown_name


def look_up(what: str, name: str, registry: Mapping[str, str]) -> Any:
    """Return what `MODULE:ATTRIBUTE` of a name stands for.

    what: the noun of the error. Raises ConfigError with the nearest name for an unknown one.
    """
    if name not in registry:
        raise unknown_name(what, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
