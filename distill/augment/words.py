"""What a word of a text is, and texts with some of them replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Span = tuple[int, int]
# Scripts without spaces: each character is a word, as BERT's own tokenizers see it.
_WIDE = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_WORD = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]+(?:['’][^\W{_WIDE}]+)*")
_TOKEN = re.compile(rf"{_WORD.pattern}|[^\w\s]")
# A sentence ends at a full stop, question or exclamation mark with what closes it, and a space
# before something that begins; in wide scripts at the mark alone.
_END = re.compile(r"(?<=[.!?…])[\"')\]”’»]*\s+(?=[\"'(\[“‘«¿¡]*[^\W_a-z])|(?<=[。！？])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Mrs?|Ms|Dr|Prof|Sr|Jr|St|Gen|Col|Lt|Rev|Hon|Mt|No|Vol|vs|etc|approx|cf|al|Fig)"
    r"|\b(?:e\.g|i\.e|U\.S|U\.K))\.[\"')\]”’»]*$"
)


def spans(text: str) -> list[Span]:
    """Where the words of a text are, as (start, end) positions; punctuation is no word."""
    return [match.span() for match in _WORD.finditer(text)]


def tokens(text: str) -> list[str]:
    """Words and single marks of punctuation, lower-cased."""
    return _TOKEN.findall(text.lower())


def is_word(text: str) -> bool:
    """Whether a text is one word and nothing else."""
    return _WORD.fullmatch(text) is not None


def key(text: str) -> str:
    """What two texts share that differ in case, spaces and punctuation only."""
    found = " ".join(_WORD.findall(text.casefold()))
    # A text of symbols alone is itself.
    return found or text.strip()


def replaced(text: str, places: Sequence[Span], words: Mapping[int, str]) -> str:
    """The text with `words` at those of `places`; a capital stays one at a word's start."""
    parts, last = [], 0
    for index, word in sorted(words.items()):
        start, end = places[index]
        title = text[start].isupper() and word.islower()
        parts += [text[last:start], word[0].upper() + word[1:] if title else word]
        last = end
    return "".join([*parts, text[last:]])


def sentences(text: str) -> list[str]:
    """A text's sentences by its punctuation; an abbreviation's full stop ends none."""
    found: list[str] = []
    last = 0
    for match in _END.finditer(text):
        # What closes a quotation belongs to the sentence before it.
        end = match.start() + len(match[0]) - len(match[0].lstrip("\"')]”’»"))
        if not _ABBREVIATION.search(text[last:end]):
            found.append(text[last:end].strip())
            last = match.end()
    found.append(text[last:].strip())
    return [sentence for sentence in found if sentence]
