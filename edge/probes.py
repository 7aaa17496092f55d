"""Texts that try what is particular to one tokenizer: its added tokens, largest id and limit.

The built-in golden texts are the same for every checkpoint; these follow from its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edge.bundle.golden import LONG_TEXT
from edge.tokenization import Tokenizer

Text = tuple[str, str | None]

# Texts of added tokens; a tokenizer with thousands of them is tried with some.
_MOST_TEXTS = 8
# Ids tried, from the largest on, until a text is known that gives one.
_MOST_IDS = 200
# Marks that vocabularies put in the place of a space, or before the rest of a word.
_MARKS = (("##", ""), ("\u2581", " "), ("\u0120", " "), ("</w>", ""))
_FILLERS = (" a", " 1", " .", "!", "a")
_FIRST = "a"


def probes(
    tokenizer: Tokenizer, *, max_length: int, pairs: bool, short: bool = False
) -> list[Text]:
    """The texts, and pairs of them where asked for.

    short: for outputs that are large for each token: fewer tokens, and no text at the limit.
    """
    added = _added_texts(tokenizer, max_length, dense=short)
    singles = [*added, *_largest_id(tokenizer, added)]
    if not short:
        singles += _at_limit(lambda text: _count(tokenizer, text), max_length)
    texts: list[Text] = [(text, None) for text in singles]
    if pairs and not short:
        texts += [(text, text) for text in added[:1]]
        limits = _at_limit(lambda text: _count(tokenizer, _FIRST, text), max_length)
        texts += [(_FIRST, text) for text in limits]
    return list(dict.fromkeys(texts))


def _added_texts(tokenizer: Tokenizer, max_length: int, *, dense: bool) -> list[str]:
    """Every added token between words, inside a word and repeated; only once where they are many.

    Where even that takes too many texts, tokens are left out evenly, the last never.
    """
    tokens = tokenizer.added_tokens()
    for unit in (_one, _once) if dense else (_thorough, _one):
        texts = list(_packed(tokenizer, [unit(token) for token in tokens], max_length))
        if len(texts) <= _MOST_TEXTS:
            return texts
    texts = list(_packed(tokenizer, tokens, max_length))
    share = -(-len(texts) // _MOST_TEXTS)
    return list(_packed(tokenizer, tokens[::-1][::share][::-1], max_length))[-_MOST_TEXTS:]


def _thorough(token: str) -> str:
    return f"a {token} b{token}c {token}{token}"


def _one(token: str) -> str:
    return f"{token} a{token}"


def _once(token: str) -> str:
    return token


def _packed(tokenizer: Tokenizer, units: Sequence[str], max_length: int) -> Iterator[str]:
    """Texts of as many units as the limit allows, one space between them."""
    around = _count(tokenizer, "")
    held: list[str] = []
    room = max_length - around
    for unit, encoding in zip(units, tokenizer.encode_whole(units), strict=True):
        tokens = len(encoding) - around
        if held and tokens > room:
            yield " ".join(held)
            held, room = [], max_length - around
        held.append(unit)
        room -= tokens
    if held:
        yield " ".join(held)


def _largest_id(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """A text with the largest id that one can have, where `texts` have none that large."""
    known = max((max(e.input_ids) for e in tokenizer.encode_whole(texts)), default=-1)
    largest = sorted(tokenizer.vocabulary().items(), key=lambda item: -item[1])
    for token, index in largest[:_MOST_IDS]:
        if index <= known:
            break
        for text in _spellings(token):
            if index in tokenizer.encode_whole([text])[0].input_ids:
                return [text]
    return []


def _spellings(token: str) -> Iterator[str]:
    """Texts that may give a token: alone, and as the rest of a word."""
    plain = token
    for mark, instead in _MARKS:
        plain = plain.replace(mark, instead)
    yield from (token, plain, plain.strip(), f"a{plain}", f"a {plain}")


def _at_limit(count: Callable[[str], int], max_length: int) -> list[str]:
    """A text of exactly `max_length` tokens and one of a token more, as far as texts allow."""
    words = LONG_TEXT.split()
    around, step = count(""), max(1, count(LONG_TEXT) - count(""))
    text = " ".join([LONG_TEXT] * max(0, (max_length - around) // step - 1))
    for word in words * 3:
        longer = f"{text} {word}".strip()
        if count(longer) > max_length:
            break
        text = longer
    exact = _extended(count, text, max_length)
    return [exact, _extended(count, exact, max_length + 1)]


def _extended(count: Callable[[str], int], text: str, tokens: int) -> str:
    """The text with short words behind it until it has so many tokens; as it is if none fit."""
    while (now := count(text)) < tokens:
        longer = (text + filler for filler in _FILLERS)
        fitting = [one for one in longer if now < count(one) <= tokens]
        if not fitting:
            break
        text = fitting[0]
    return text


def _count(tokenizer: Tokenizer, text: str, pair: str | None = None) -> int:
    return len(tokenizer.encode_whole([text], None if pair is None else [pair])[0])
