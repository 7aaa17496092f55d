"""Candidates for each word of a text: from a masked language model, or from a vector space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.augment.vocabulary import EmbeddingSpace, FileSpace, Vocabulary, neighbours
from distill.augment.words import spans
from distill.training.counting import counting
from edge.models.inputs import accepted
from edge.tokenization import Encoding, Tokenizer

# For each word of a text the words that may stand in its place, in a fixed order.
Candidates = list[list[str]]
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Reader:
    """A masked language model and how it reads.

    vocabulary: the words it may propose. together: how many words of a text are masked at once.
    """

    model: Any
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    max_length: int
    together: int = 1


@dataclass(frozen=True)
class _Blank:
    """A word to be guessed: of which text, which word, and which token is masked."""

    text: int
    word: int
    token: int


def by_neighbours(
    texts: Sequence[str], space: EmbeddingSpace | FileSpace, count: int
) -> dict[str, Candidates]:
    """The `count` nearest words of every word of each text."""
    words = {text: [text[start:end] for start, end in spans(text)] for text in texts}
    near = neighbours((word for found in words.values() for word in found), space, count)
    return {text: [near[word] for word in found] for text, found in words.items()}


def by_masked_lm(
    texts: Sequence[str], reader: Reader, space: EmbeddingSpace | FileSpace, count: int
) -> dict[str, Candidates]:
    """The model's `count` best words for every word of one token, neighbours for the others.

    Words after the model's longest input have no candidates. Source: Jiao et al. 2020,
    "TinyBERT", algorithm 1, where each word is masked alone.
    """
    texts = list(dict.fromkeys(texts))
    encodings = reader.tokenizer.encode(texts, max_length=reader.max_length)
    found: list[Candidates] = [[[] for _ in spans(text)] for text in texts]
    blanks: list[_Blank] = []
    rest: list[tuple[int, int]] = []
    for index, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
        for word, tokens in enumerate(_tokens_of_words(text, encoding)):
            if len(tokens) == 1:
                blanks.append(_Blank(index, word, tokens[0]))
            elif tokens:
                rest.append((index, word))
    for blank, words in _guess(blanks, texts, encodings, reader, count):
        found[blank.text][blank.word] = words
    asked = {place: _word(texts[place[0]], place[1]) for place in rest}
    near = neighbours(asked.values(), space, count)
    for (index, word), text in asked.items():
        found[index][word] = near[text]
    return dict(zip(texts, found, strict=True))


def _word(text: str, index: int) -> str:
    start, end = spans(text)[index]
    return text[start:end]


def _tokens_of_words(text: str, encoding: Encoding) -> Iterator[list[int]]:
    """The tokens of each word; a word that shares one with its surroundings counts as several."""
    offsets = encoding.offsets or []
    special = encoding.special or [False] * len(offsets)
    real = [(i, s, e) for i, (s, e) in enumerate(offsets) if e > s and not special[i]]
    for start, end in spans(text):
        touching = [(i, s, e) for i, s, e in real if s < end and e > start]
        found = [i for i, _, _ in touching]
        if len(found) == 1:
            _, s, e = touching[0]
            # A space before the word may be part of its token.
            found *= 1 if e == end and not text[s:start].strip() else 2
        yield found


def _guess(
    blanks: list[_Blank],
    texts: Sequence[str],
    encodings: Sequence[Encoding],
    reader: Reader,
    count: int,
) -> Iterator[tuple[_Blank, list[str]]]:
    """Each blank with the model's best words in the order of their ids, longest texts first."""
    ordered = sorted(_rows(blanks, reader.together), key=lambda row: -len(encodings[row[0].text]))
    ids = torch.from_numpy(reader.vocabulary.ids)
    start = 0
    with counting("asking the masked language model", len(blanks)) as advance:
        while start < len(ordered):
            fit = max(1, _BATCH_TOKENS // len(encodings[ordered[start][0].text]))
            batch = ordered[start : start + fit]
            logits = _logits(batch, encodings, reader)[:, ids]
            # One more than asked for: the word itself is most often the best.
            best = logits.topk(min(count + 1, len(ids)), dim=-1).indices
            asked = [blank for row in batch for blank in row]
            for blank, columns in zip(asked, best.tolist(), strict=True):
                own = _word(texts[blank.text], blank.word).casefold()
                names = [(c, reader.vocabulary.words[c]) for c in columns]
                kept = [(c, name) for c, name in names if name.casefold() != own][:count]
                yield blank, [name for _, name in sorted(kept)]
            start += len(batch)
            advance(len(asked))


def _rows(blanks: list[_Blank], together: int) -> list[list[_Blank]]:
    """What is asked at once: up to `together` blanks of a text, as far apart as they can be."""
    by_text: dict[int, list[_Blank]] = {}
    for blank in blanks:
        by_text.setdefault(blank.text, []).append(blank)
    rows = []
    for own in by_text.values():
        count = -(-len(own) // together)
        rows += [own[first::count] for first in range(count)]
    return rows


def _logits(batch: list[list[_Blank]], encodings: Sequence[Encoding], reader: Reader) -> Tensor:
    """(blanks, vocabulary): what the model says at each masked token."""
    model, tokenizer = reader.model, reader.tokenizer
    assert tokenizer.info.mask_token_id is not None
    found = [encodings[row[0].text] for row in batch]
    columns = tokenizer.pad(found, max(map(len, found)))
    inputs = {
        name: torch.from_numpy(column).long().to(model.device) for name, column in columns.items()
    }
    places = [(i, blank.token) for i, row in enumerate(batch) for blank in row]
    rows, tokens = torch.tensor(places, device=model.device).unbind(-1)
    inputs["input_ids"][rows, tokens] = tokenizer.info.mask_token_id

    def only_blanks(_: Any, args: tuple[Tensor, ...]) -> Tensor:
        return args[0][rows, tokens].unsqueeze(1)

    # The last layer, over the whole vocabulary, costs a small model as much as all the others.
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(only_blanks) if head is not None else None
    try:
        with torch.inference_mode():
            logits: Tensor = model(**accepted(model, inputs)).logits
    finally:
        if hook is not None:
            hook.remove()
    # Some architectures multiply by the layer's weights without calling it.
    return (logits[:, 0] if logits.shape[1] == 1 else logits[rows, tokens]).float().cpu()
