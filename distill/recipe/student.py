"""What a student is, as a SPEC that a person types.

layers=3                    three of the teacher's layers, evenly chosen, and everything around them
layers=1/2                  half of the teacher's layers
layers=0,2,4                these layers of the teacher, counted from 0
layers=3,hidden=128         narrower: heads and intermediate size follow, all made of the teacher's
layers=3,init=random        the shape only
layers=3,embedding_dim=64   vectors of 64 numbers, for embeddings; after PATH, too
architecture=distilbert,... another architecture: that of DistilBERT takes BERT's weights over
architecture=bilstm,...     hidden=150 units a direction; any key of its configuration may follow
layers=3,vocabulary=5000    tokens of its own, learned from the texts it trains on
SPEC+SPEC                   two models whose answers are added, e.g. layers=3+layers=1
PATH or hub id              a checkpoint folder with its weights, or a config.json (random weights)
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from edge.config import Config
from edge.errors import ConfigError, unknown_name
from edge.provenance import AS_IS, Counts, Word
from edge.sources import CheckpointSource

# A part of the teacher's layers, such as 1/2.
Share = Annotated[str, AS_IS, Field(pattern=r"^\d+/\d+$")]
# What a configuration of Transformers holds, as far as it can be typed.
Value = bool | int | float | Word | tuple[int, ...]
# Keys that only code gives a value.
_DERIVED = {"source", "settings", "plus"}
# What an assistant says that has the tokens of the student at the end of its chain.
OF_STUDENT = "vocabulary=student"
# What parts two SPECs: a key follows, so that a path may hold the sign.
_PLUS = re.compile(r"\s*\+\s*(?=[a-z_]+=)")


class StudentSpec(Config):
    """A parsed SPEC: a `source`, or a change of the teacher's shape.

    architecture: Transformers' `model_type`, or one of `edge.models`; the teacher's by default.
    embedding: the width of word embeddings, where the architecture widens them afterwards.
    embedding_dim: how many numbers the vector of a text has, for a student that embeds.
    init: `teacher` takes over what fits, narrowed as `svd` does where the student is narrower.
    `slice` keeps the units, heads and neurons that matter most, `svd` the principal components of
    the hidden states. vocabulary: how many tokens of its own it reads; the teacher's tokens by
    default. plus: a second model, whose answers are added. settings: other keys of the
    architecture's configuration.
    """

    source: CheckpointSource | None = None
    architecture: Word | None = None
    layers: PositiveInt | tuple[int, ...] | Share | None = None
    hidden: PositiveInt | None = None
    heads: PositiveInt | None = None
    intermediate: PositiveInt | None = None
    embedding: PositiveInt | None = None
    embedding_dim: int | None = Field(default=None, ge=8, le=768)
    init: Literal["teacher", "slice", "svd", "random"] = "teacher"
    settings: dict[str, Value] = {}
    plus: StudentSpec | None = None
    vocabulary: PositiveInt | None = None


# A SPEC as a person types it: what it says counts. One whose tokens another gives names no file.
Spec = Annotated[str, Counts(lambda text: text if OF_STUDENT in text else parse_spec(text))]


def spec_keys() -> set[str]:
    """What a person may type, beside the settings of an architecture."""
    return set(StudentSpec.model_fields) - _DERIVED


def parse_spec(text: str) -> StudentSpec:
    """Read a SPEC; raises ConfigError for an unknown key (nearest suggested) or a bad value.

    Keys of an architecture's configuration are checked when the student is built.
    """
    first, *others = _PLUS.split(text) if not Path(text).exists() else [text]
    if len(others) > 1:
        raise ConfigError(f"student '{text}' adds {len(others) + 1} models: add two")
    if others:
        return parse_spec(first).model_copy(update={"plus": parse_spec(others[0])})
    source, comma, size = text.rpartition(",embedding_dim=")
    if comma and (Path(source).exists() or "=" not in source):
        values = {"source": source, "embedding_dim": size}
        return StudentSpec.build(values, where=f"student '{text}'")
    if Path(text).exists():
        return StudentSpec(source=text)
    words = "|".join(sorted(spec_keys() - {"layers"}))
    if re.match(rf"((layers?|{words})\b[^=]*|\d+(,.*)?)$", text):
        raise ConfigError(f"student '{text}' needs key=value, e.g. layers=3 or layers=3,hidden=128")
    if "=" not in text:
        return StudentSpec(source=text)
    values = _pairs(text)
    settings = {key: _setting(values.pop(key)) for key in set(values) - spec_keys()}
    if settings and "architecture" not in values:
        raise unknown_name("student key", min(settings), spec_keys())
    if "layers" in values:
        values["layers"] = _parse_layers(values["layers"])
    return StudentSpec.build({**values, "settings": settings}, where=f"student '{text}'")


def _pairs(text: str) -> dict[str, Any]:
    """Keys and values; a part without a key belongs to the value before it."""
    values: dict[str, Any] = {}
    key = ""
    for part in text.split(","):
        if "=" in part or not key:
            key, _, value = (piece.strip() for piece in part.partition("="))
            if not key or key in _DERIVED:
                raise unknown_name("student key", key, spec_keys())
            values[key] = value
        else:
            values[key] = f"{values[key]},{part.strip()}"
    return values


def _setting(value: str) -> Value:
    """A value as YAML would read it; whole numbers with commas between them are a list."""
    if value in {"true", "false"}:
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    if re.fullmatch(r"\d+(,\d+)+", value):
        return tuple(int(part) for part in value.split(","))
    return value


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
