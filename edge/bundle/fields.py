"""The fields of `edge.json` that several of its parts have; each check raises ValueError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from edge.config import Config
from edge.errors import unknown_name
from edge.signature import INPUT_NAMES

_NEEDED_INPUTS = {"input_ids", "attention_mask"}


def sha256(value: str) -> str:
    """A SHA-256 digest in lower-case hexadecimal."""
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"a SHA-256 digest has 64 hexadecimal digits, found {value[:80]!r}")
    return value


def ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths in ascending order, each once."""
    if list(values) != sorted(set(values)):
        raise ValueError(f"lengths must ascend, found {', '.join(map(str, values))}")
    return values


def check_once(where: str, values: Sequence[str]) -> None:
    """Raise ValueError for a value that is there twice."""
    repeated = [value for value in dict.fromkeys(values) if list(values).count(value) > 1]
    if repeated:
        raise ValueError(f"{where}: '{repeated[0]}' is there twice")


def check_input_names(where: str, names: Sequence[str]) -> None:
    """Raise ValueError unless these are inputs of an encoder, and all that it needs."""
    check_once(where, names)
    foreign = [name for name in names if name not in INPUT_NAMES]
    if foreign:
        raise ValueError(f"{where}: {unknown_name('input', foreign[0], INPUT_NAMES)!s}")
    missing = sorted(_NEEDED_INPUTS.difference(names))
    if missing:
        raise ValueError(f"{where} lacks {' and '.join(missing)}")


RelativePath = str
Name = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, AfterValidator(sha256)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Lengths = Annotated[tuple[Count, ...], AfterValidator(ascending)]


class Record(Config):
    """A part of `edge.json`: no figure in it is NaN or infinite."""

    model_config = ConfigDict(allow_inf_nan=False)
