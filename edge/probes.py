"""Probe texts for one tokenizer: its added tokens, its largest id and its length limit.

The built-in golden texts are the same for every checkpoint; these depend on its tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edge.bundle.golden import LONG_TEXT
from edge.tokenization import Tokenizer

Text = tuple[str, str | None]

# Limit on the texts of added tokens; of thousands of tokens only a sample is probed.
_MAX_TEXTS = 8
# Limit on the ids tried, in descending order, until a text encodes to one.
_MAX_IDS = 200
# Markers of vocabularies for a space or a word continuation, and their replacement in a text.
_MARKERS = (("##", ""), ("\u2581", " "), ("\u0120", " "), ("</w>", ""))
_FILLERS = (" a", " 1", " .", "!", "a")
_FIRST = "a"


def probes(
    tokenizer: Tokenizer, *, max_length: int, pairs: bool, short: bool = False
) -> list[Text]:
    """Return the probe texts, and pairs of them if `pairs`.

    short: fewer tokens and no text at the length limit, for outputs that are large per token.
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
    """Return texts with every added token between words, inside a word and repeated.

    Many tokens occur in fewer positions; if there are still too many texts, tokens are sampled at
    even intervals, always including the last.
    """
    tokens = tokenizer.added_tokens()
    for unit in (_two_positions, _alone) if dense else (_three_positions, _two_positions):
        texts = list(_packed(tokenizer, [unit(token) for token in tokens], max_length))
        if len(texts) <= _MAX_TEXTS:
            return texts
    texts = list(_packed(tokenizer, tokens, max_length))
    share = -(-len(texts) // _MAX_TEXTS)
    return list(_packed(tokenizer, tokens[::-1][::share][::-1], max_length))[-_MAX_TEXTS:]


def _three_positions(token: str) -> str:
    return f"a {token} b{token}c {token}{token}"


def _two_positions(token: str) -> str:
    return f"{token} a{token}"


def _alone(token: str) -> str:
    return token


def _packed(tokenizer: Tokenizer, units: Sequence[str], max_length: int) -> Iterator[str]:
    """Yield texts of as many units as the limit allows, separated by one space."""
    special_count = _count(tokenizer, "")
    units_in_text: list[str] = []
    free_tokens = max_length - special_count
    for unit, encoding in zip(units, tokenizer.encode_whole(units), strict=True):
        tokens = len(encoding) - special_count
        if units_in_text and tokens > free_tokens:
            yield " ".join(units_in_text)
            units_in_text, free_tokens = [], max_length - special_count
        units_in_text.append(unit)
        free_tokens -= tokens
    if units_in_text:
        yield " ".join(units_in_text)


def _largest_id(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return a text that encodes to the largest reachable id, unless `texts` already do."""
    largest_seen = max((max(e.input_ids) for e in tokenizer.encode_whole(texts)), default=-1)
    largest = sorted(tokenizer.vocabulary().items(), key=lambda item: -item[1])
    for token, index in largest[:_MAX_IDS]:
        if index <= largest_seen:
            break
        for text in _spellings(token):
            if index in tokenizer.encode_whole([text])[0].input_ids:
                return [text]
    return []


def _spellings(token: str) -> Iterator[str]:
    """Yield texts that may encode to a token: alone, and as a word continuation."""
    plain = token
    for marker, replacement in _MARKERS:
        plain = plain.replace(marker, replacement)
    yield from (token, plain, plain.strip(), f"a{plain}", f"a {plain}")


def _at_limit(count: Callable[[str], int], max_length: int) -> list[str]:
    """Return a text of exactly `max_length` tokens and one with one more, where possible."""
    words = LONG_TEXT.split()
    special_count, step = count(""), max(1, count(LONG_TEXT) - count(""))
    text = " ".join([LONG_TEXT] * max(0, (max_length - special_count) // step - 1))
    for word in words * 3:
        longer = f"{text} {word}".strip()
        if count(longer) > max_length:
            break
        text = longer
    exact = _extended(count, text, max_length)
    return [exact, _extended(count, exact, max_length + 1)]


def _extended(count: Callable[[str], int], text: str, tokens: int) -> str:
    """Append short words to `text` until it has `tokens` tokens or no word fits."""
    while (current := count(text)) < tokens:
        longer = (text + filler for filler in _FILLERS)
        fitting = [candidate for candidate in longer if current < count(candidate) <= tokens]
        if not fitting:
            break
        text = fitting[0]
    return text


def _count(tokenizer: Tokenizer, text: str, pair: str | None = None) -> int:
    return len(tokenizer.encode_whole([text], None if pair is None else [pair])[0])
