"""The result of the format readers, and the error for a file that they cannot parse."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge.errors import BundleError
from edge.inspection.records import Signature, StoredTensor


@dataclass(frozen=True)
class Contents:
    """The parsed contents of a model file. version: of the file format."""

    version: str
    producer: str | None
    signatures: tuple[Signature, ...]
    operators: Counter[str]
    tensors: tuple[StoredTensor, ...]


def damaged(path: Path, title: str, reason: object) -> BundleError:
    """Return the error for a file that is malformed or inconsistent."""
    line = " ".join(str(reason).split())[:200]
    return BundleError(f"{path} is not a usable {title} file ({line}): run edge convert again")


def bits_of(dtype: str) -> int:
    """Return the bits of one value of a data type, from its name: float32, int4, bool ..."""
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 8


def is_weight(dtype: str, elements: int) -> bool:
    """Return True if a constant is a weight: several values, floating-point or quantized."""
    return elements > 1 and ("float" in dtype or bits_of(dtype) <= 8) and dtype != "bool"
