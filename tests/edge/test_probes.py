"""Golden texts that follow from a checkpoint's own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.bundle import TokenizerInfo
from edge.probes import probes
from edge.tokenization import Tokenizer

INFO = TokenizerInfo(
    file="tokenizer.json",
    sha256="0" * 64,
    vocabulary=None,
    vocabulary_size=1,
    pad_token_id=0,
    mask_token_id=None,
    lowercase=True,
    strip_accents=True,
    inputs=("input_ids", "attention_mask"),
)


def tokenizer(bert_checkpoint: Path, *added: str) -> Tokenizer:
    import tokenizers

    inner: Any = tokenizers.Tokenizer.from_file(str(bert_checkpoint / "tokenizer.json"))
    for token in added:
        inner.add_tokens([tokenizers.AddedToken(token, normalized=not token.startswith("<"))])
    return Tokenizer(inner, INFO)


def ids(found: Tokenizer, texts: list[tuple[str, str | None]], length: int) -> list[list[int]]:
    return [
        found.encode([text], None if pair is None else [pair], max_length=length)[0].input_ids
        for text, pair in texts
    ]


@pytest.mark.parametrize("length", [16, 32])
@pytest.mark.parametrize("short", [False, True])
def test_every_added_token_and_the_largest_id_are_there(
    bert_checkpoint: Path, length: int, short: bool
) -> None:
    added = ("newtok", "two words", "émoji😀", "<user>")
    found = tokenizer(bert_checkpoint, *added)
    texts = probes(found, max_length=length, pairs=False, short=short)
    vocabulary = found.vocabulary()
    seen = {index for row in ids(found, texts, length) for index in row}
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert {vocabulary[token] for token in (*special, *added)} <= seen
    assert max(vocabulary.values()) in seen
    between = [text for text, _ in texts if " newtok " in text or "anewtok" in text]
    assert between, "between words or inside of one"


def test_the_largest_id_of_a_vocabulary_without_added_tokens_behind(bert_checkpoint: Path) -> None:
    found = tokenizer(bert_checkpoint)
    texts = probes(found, max_length=16, pairs=False)
    seen = {index for row in ids(found, texts, 16) for index in row}
    assert max(found.vocabulary().values()) in seen


@pytest.mark.parametrize("length", [8, 16, 64, 200])
def test_texts_are_at_the_limit_and_one_over_it(bert_checkpoint: Path, length: int) -> None:
    found = tokenizer(bert_checkpoint)
    texts = probes(found, max_length=length, pairs=True)
    single = [len(e) for e in found.encode_whole([text for text, pair in texts if pair is None])]
    assert {length, length + 1} <= set(single)
    pairs = [(text, pair) for text, pair in texts if pair is not None]
    double = found.encode_whole([a for a, _ in pairs], [b for _, b in pairs])
    assert {length, length + 1} <= {len(encoding) for encoding in double}


def test_thousands_of_added_tokens_are_tried_in_a_few_texts(bert_checkpoint: Path) -> None:
    found = tokenizer(bert_checkpoint, *(f"extra{number}" for number in range(3000)))
    texts = probes(found, max_length=128, pairs=False)
    assert len(texts) <= 11
    seen = {index for row in ids(found, texts, 128) for index in row}
    assert max(found.vocabulary().values()) in seen
    assert len(seen) > 600
