"""What a student is, as a SPEC that a person types.

layers=3                  three of the teacher's layers, evenly chosen, and everything around them
layers=1/2                half of the teacher's layers
layers=0,2,4              these layers of the teacher, counted from 0
layers=3,hidden=128       narrower: heads and intermediate size follow; what does not fit is random
layers=3,init=random      the shape only
PATH or hub id            a checkpoint folder with its weights, or a config.json (random weights)
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from edge.config import Config
from edge.errors import ConfigError, unknown_name

# A part of the teacher's layers, such as 1/2.
Share = Annotated[str, Field(pattern=r"^\d+/\d+$")]


class StudentSpec(Config):
    """A parsed SPEC: a `source`, or a change of the teacher's shape."""

    source: str | None = None
    layers: PositiveInt | tuple[int, ...] | Share | None = None
    hidden: PositiveInt | None = None
    heads: PositiveInt | None = None
    intermediate: PositiveInt | None = None
    init: Literal["teacher", "random"] = "teacher"


def parse_spec(text: str) -> StudentSpec:
    """Read a SPEC; raises ConfigError for an unknown key (nearest suggested) or a bad value."""
    if Path(text).exists():
        return StudentSpec(source=text)
    if re.match(r"((layers?|hidden|heads|init)\b[^=]*|\d+(,.*)?)$", text):
        raise ConfigError(f"student '{text}' needs key=value, e.g. layers=3 or layers=3,hidden=128")
    if "=" not in text:
        return StudentSpec(source=text)
    values: dict[str, Any] = {}
    key = ""
    for part in text.split(","):
        if "=" in part or not key:
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in StudentSpec.model_fields or key == "source":
                raise unknown_name("student key", key, set(StudentSpec.model_fields) - {"source"})
            values[key] = value
        else:
            values[key] = f"{values[key]},{part.strip()}"
    if "layers" in values:
        values["layers"] = _parse_layers(values["layers"])
    return StudentSpec.build(values, where=f"student '{text}'")


def _parse_layers(value: str) -> Any:
    try:
        if "/" in value:
            if not 0 < Fraction(value) <= 1:
                raise ValueError
            return value
        numbers = tuple(int(part) for part in value.split(","))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"layers={value} is not a number of layers: use layers=3, layers=1/2 or layers=0,2,4"
        ) from None
    return numbers if "," in value else numbers[0]
