"""What the readers of the three formats give, and the error for a file they cannot read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge.errors import BundleError
from edge.inspection.records import Signature, StoredTensor


@dataclass(frozen=True)
class Contents:
    """A model file, taken apart without running it. version: of the file format."""

    version: str
    producer: str | None
    signatures: tuple[Signature, ...]
    operators: Counter[str]
    tensors: tuple[StoredTensor, ...]


def damaged(path: Path, title: str, reason: object) -> BundleError:
    """The error for a file that is not of its format, or whose parts contradict each other."""
    line = " ".join(str(reason).split())[:200]
    return BundleError(f"{path} is not a usable {title} file ({line}): run edge convert again")


def bits_of(dtype: str) -> int:
    """Width of one value of a data type, from its name: float32, int4, bool ..."""
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 8


def is_weight(dtype: str, elements: int) -> bool:
    """Whether a constant belongs to the model: several values, floats or quantised ones."""
    return elements > 1 and ("float" in dtype or bits_of(dtype) <= 8) and dtype != "bool"
