"""What a pack is, and what was found out about it by running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.bundle import Verification
from edge.config import Config


class TextDifference(Config):
    """A text that the pack's own tokenizer splits in another way than the bundle's.

    expected, found: the tokens, special ones included. found is empty where the pack's tokenizer
    failed, with the `reason`.
    """

    text: str
    text_pair: str | None
    expected: tuple[str, ...]
    found: tuple[str, ...]
    reason: str | None = None


class PackReport(Config):
    """One pack.

    artifact: what of the bundle it was made from. sequence_length: in tokens; longer texts are cut.
    verifications: one for each engine, all over the texts that the pack tokenises right.
    texts: how many were tokenised by the pack's own tokenizer (0: it could not be run here);
    different: those it splits in another way than the bundle's.
    """

    kind: str
    file: Path
    bytes: int
    sha256: str
    artifact: str
    sequence_length: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    verifications: tuple[Verification, ...]
    texts: int
    different: tuple[TextDifference, ...]


@dataclass(frozen=True)
class Proof:
    """What building a pack found out, in the terms of PackReport."""

    sequence_length: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    verifications: tuple[Verification, ...]
    texts: int
    different: tuple[TextDifference, ...]
