"""The tokens that a tokenizer looks for in a text before it splits it into words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from converters.packs.onnx_nodes import Nodes
from edge.errors import ConfigError

# Private use: stands for an added token in a text, before it is spelled out again.
_FIRST_PLACEHOLDER = 0x100000
# Around an added token, until it is known which it is.
_START, _END = "\U0010fff0", "\U0010fff1"
# White space of Unicode, any amount.
_BLANKS = r"[\s\p{Z}\x{85}]*"
# Each is an operator that goes through the text.
_MOST = 200


@dataclass(frozen=True)
class AddedToken:
    """One added token.

    pattern: what is looked for in the text, normalised where it is looked for in normalised texts.
    blanks: whether white space before it and after it belongs to it.
    in_vocabulary: a word of its own name has its id, too. stand_in: a character of private use.
    """

    content: str
    index: int
    normalized: bool
    pattern: str
    blanks: tuple[bool, bool]
    in_vocabulary: bool
    stand_in: str

    @property
    def expression(self) -> str:
        """The pattern as a regular expression of RE2."""
        before, after = (_BLANKS if blank else "" for blank in self.blanks)
        return f"{before}{re.escape(self.pattern)}{after}"


def read_added(tokenizer_json: str) -> tuple[AddedToken, ...]:
    """The added tokens of a tokenizer.json; raises ConfigError for what operators cannot do."""
    import tokenizers

    values: dict[str, Any] = json.loads(tokenizer_json)
    records = values.get("added_tokens") or []
    if len(records) > _MOST:
        raise ConfigError(f"its operators look for {_MOST} added tokens, this has {len(records)}")
    normalizer = tokenizers.Tokenizer.from_str(tokenizer_json).normalizer
    vocabulary = values["model"]["vocab"]
    found = []
    for number, record in enumerate(records):
        content = record["content"]
        if record["single_word"]:
            raise ConfigError(f"its added token {content!r} is for whole words, not for operators")
        normalized = bool(record["normalized"])
        normal = normalizer.normalize_str(content) if normalized and normalizer else content
        found.append(
            AddedToken(
                content,
                record["id"],
                normalized,
                normal,
                (bool(record["lstrip"]), bool(record["rstrip"])),
                content in vocabulary and not re.search(r"\s", content),
                chr(_FIRST_PLACEHOLDER + number),
            )
        )
    for token in found:
        if not token.pattern.isprintable() or not token.pattern.strip():
            raise ConfigError(f"its added token {token.content!r} is not printable")
    for normalized in (False, True):
        patterns = [token.pattern for token in found if token.normalized == normalized]
        if len(set(patterns)) < len(patterns):
            raise ConfigError("two of its added tokens are one text")
    return tuple(found)


def reserved(added: tuple[AddedToken, ...]) -> list[str]:
    """The characters that mean something here, and must not come out of a text as they are."""
    return [*(token.stand_in for token in added), _START, _END]


def mark(
    nodes: Nodes,
    text: str,
    added: tuple[AddedToken, ...],
    *,
    normalized: bool,
    around: str = "",
) -> str:
    """Each token as its stand-in: the leftmost first, of those at one place the longest.

    normalized: those that are looked for in normalised texts, or the others. around: what to put
    on both sides.
    """
    wanted = [token for token in added if token.normalized == normalized]
    if not wanted:
        return text
    longest = sorted(wanted, key=lambda token: -len(token.pattern))
    either = "|".join(token.expression for token in longest)
    text = nodes.replace(text, f"({either})", rf"{_START}\1{_END}")
    for token in wanted:
        marked = f"{_START}{token.expression}{_END}"
        text = nodes.replace(text, marked, f"{around}{token.stand_in}{around}")
    return text


def spell(nodes: Nodes, text: str, added: tuple[AddedToken, ...]) -> str:
    """The names of tokens that words spell, in the place of their stand-ins."""
    for token in added:
        if token.in_vocabulary:
            text = nodes.replace(text, token.stand_in, token.content.replace("\\", "\\\\"))
    return text
