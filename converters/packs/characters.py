"""What a BERT tokenizer does to single characters, as tables and RE2 character classes.

Cleaning, lower-casing, stripping accents and splitting at punctuation look at one character at a
time, so trying every character of Unicode describes them completely.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.packs.added_tokens import AddedToken, read_added
from edge.errors import ConfigError

if TYPE_CHECKING:
    import tokenizers

_SURROGATES = range(0xD800, 0xE000)
_CHUNK = 0x4000
# Code points; below, a table is shorter than a class, which is compiled for every text.
_LONG_RUN = 64
# Normalised to itself. A letter.
_GUARD = "|"
_PLAIN = "a"


@dataclass(frozen=True)
class Characters:
    """What becomes of each character that does not stay as it is.

    changed: the string in its place, "" where it is dropped, with spaces around the characters
    that are words of their own.
    """

    changed: dict[str, str]

    def dropped(self) -> set[str]:
        return {char for char, value in self.changed.items() if not value}

    def isolated(self) -> set[str]:
        """Characters that stay, as words of their own."""
        return {char for char, value in self.changed.items() if value == f" {char} "}


@dataclass(frozen=True)
class WordPieces:
    """A WordPiece vocabulary in the order of ids, and what follows for single characters.

    tokens: one for each id; a placeholder where the token itself cannot come out of the operators.
    added: what is looked for in a text before it is split into words. alphabet: all characters of
    its pieces. never_first, never_later: those that no piece has at the beginning of a word, or
    after it: a word with one there has no pieces.
    """

    tokens: tuple[str, ...]
    prefix: str
    unknown: str
    longest_word: int
    added: tuple[AddedToken, ...]
    alphabet: frozenset[str]
    never_first: frozenset[str]
    never_later: frozenset[str]


@functools.lru_cache(maxsize=1)
def read_characters(tokenizer_json: str) -> Characters:
    """Try every character of Unicode on a BertNormalizer and a BertPreTokenizer."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
    changed = {}
    for start in range(0, 0x110000, _CHUNK):
        characters = [chr(c) for c in range(start, start + _CHUNK) if c not in _SURROGATES]
        normal = _normalised(tokenizer, characters)
        unchanged = [char for char in characters if normal.get(char) == char]
        changed.update({char: f" {char} " for char in _words(tokenizer, unchanged)})
        for char, value in normal.items():
            if value != char:
                # Most are dropped, or Chinese and set apart by now.
                plain = not value or value == f" {char} "
                changed[char] = value if plain else _split(tokenizer, value)
    return Characters(changed)


def long_runs(characters: Iterable[str]) -> set[str]:
    """Those with many neighbours among them, which a character class says shortly."""
    return {
        chr(code)
        for first, last in _ranges(characters)
        if last - first >= _LONG_RUN
        for code in range(first, last + 1)
    }


def read_word_pieces(tokenizer_json: str) -> WordPieces:
    """The vocabulary of a tokenizer.json; raises ConfigError when no operator can express it."""
    values: dict[str, Any] = json.loads(tokenizer_json)
    model = values["model"]
    vocabulary = model["vocab"]
    unknown, prefix = str(model["unk_token"]), str(model["continuing_subword_prefix"])
    added = read_added(tokenizer_json)
    names = {token.content for token in added}
    alphabet = _alphabet([token for token in vocabulary if token not in names], prefix)
    ids = {**vocabulary, **{token.content: token.index for token in added}}
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ConfigError("its operators number the lines of a list, this bundle's ids have gaps")
    if unknown not in vocabulary:
        raise ConfigError(f"its vocabulary lacks the token for unknown words, {unknown}")
    pieces = WordPieces(
        tokens=tuple(tokens),
        prefix=prefix,
        unknown=unknown,
        longest_word=int(model["max_input_chars_per_word"]),
        added=added,
        **alphabet,
    )
    _check_normalised(pieces, read_characters(tokenizer_json))
    lines = [*tokens]
    for token in added:
        # A line of its own name would also be found where an ordinary word is spelled like it.
        lines[token.index] = lines[token.index] if token.in_vocabulary else token.stand_in
    return replace(pieces, tokens=tuple(lines))


def _check_normalised(pieces: WordPieces, characters: Characters) -> None:
    """Refuse tokens that are looked for in normalised texts, if these are split before."""
    for token in pieces.added:
        letters = set(token.pattern)
        if token.normalized and (letters - pieces.alphabet or letters & set(characters.changed)):
            raise ConfigError(
                f"its added token {token.content!r} is looked for in normalised texts, which the "
                "operators do for letters and digits of its vocabulary only"
            )


def character_class(characters: Iterable[str], *, negated: bool = False) -> str:
    """An RE2 class such as [\\x{61}-\\x{7a}], of at least one character."""
    parts = (
        rf"\x{{{first:x}}}" if first == last else rf"\x{{{first:x}}}-\x{{{last:x}}}"
        for first, last in _ranges(characters)
    )
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _ranges(characters: Iterable[str]) -> list[tuple[int, int]]:
    """Code points as (first, last) of each run of neighbours."""
    found: list[tuple[int, int]] = []
    for code in sorted(map(ord, characters)):
        if found and code == found[-1][1] + 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def _alphabet(pieces: Iterable[str], prefix: str) -> dict[str, frozenset[str]]:
    first: set[str] = set()
    later: set[str] = set()
    known = set(pieces)
    for piece in known:
        continues = piece.startswith(prefix) and len(piece) > len(prefix)
        letters = piece.removeprefix(prefix) if continues else piece
        first.update(() if continues else letters[:1])
        later.update(letters if continues else letters[1:])
    # Where every character is a piece by itself, a word of known characters always has pieces.
    alone = first <= known and {prefix + char for char in later} <= known
    if not alone:
        lacking = sorted((first - known) | {c for c in later if prefix + c not in known})
        raise ConfigError(
            "its operators get unknown words wrong unless every character is a word piece too, "
            f"and this vocabulary lacks {len(lacking)} of them ({', '.join(lacking[:5])})"
        )
    alphabet = frozenset(first | later)
    return {
        "alphabet": alphabet,
        "never_first": alphabet - first,
        "never_later": alphabet - later,
    }


def _normalised(tokenizer: tokenizers.Tokenizer, characters: list[str]) -> dict[str, str]:
    """Each character and what the normaliser makes of it, all in one call."""
    text = tokenizer.normalizer.normalize_str(_GUARD.join(characters))
    # The guard itself comes back as two ends and nothing between.
    parts = text.split(_GUARD)
    if _GUARD in characters:
        place = characters.index(_GUARD)
        parts[place : place + 2] = [_GUARD]
    return dict(zip(characters, parts, strict=True))


def _words(tokenizer: tokenizers.Tokenizer, characters: list[str]) -> set[str]:
    """Those of the characters that are words of their own between letters."""
    text = _PLAIN + _PLAIN.join(characters) + _PLAIN
    pieces = {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    return pieces.intersection(characters) - {_PLAIN}


def _split(tokenizer: tokenizers.Tokenizer, text: str) -> str:
    """The text between letters as the pre-tokenizer splits it, with spaces around words of it."""
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(_PLAIN + text + _PLAIN)
    return " ".join(word for word, _ in pieces)[1:-1]
