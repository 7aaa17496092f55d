"""The bundle's tokenizer equals the checkpoint's, on every kind of text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.bundle.golden import texts_for
from edge.checkpoint import load_tokenizer, open_checkpoint
from edge.engines.runner import bundle_tokenizer
from edge.errors import BundleError
from edge.tokenization import Encoding, Tokenizer, describe, pad


@pytest.mark.parametrize("length", [8, 32])
def test_ids_equal_those_of_transformers(
    bert_bundle: Path, bert_checkpoint: Path, length: int
) -> None:
    ours = bundle_tokenizer(Bundle.open(bert_bundle))
    theirs = load_tokenizer(open_checkpoint(bert_checkpoint))
    for text, pair in texts_for(length, pairs=True):
        expected = theirs(text, pair, truncation="longest_first", max_length=length)
        found = ours.encode([text], None if pair is None else [pair], max_length=length)[0]
        assert found.input_ids == expected["input_ids"], text
        assert found.token_type_ids == expected["token_type_ids"], text


def test_a_damaged_template_is_refused_in_a_line(bert_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(open_checkpoint(bert_checkpoint))
    text, info = describe(tokenizer, folder=bert_checkpoint)
    values = json.loads(text)
    # The library panics where it looks for a token that the template does not define.
    values["post_processor"]["special_tokens"] = {"[X]": {"id": "[X]", "ids": [2], "tokens": ["a"]}}
    damaged = Tokenizer.from_text(json.dumps(values), info)
    for read in (
        lambda: damaged.encode(["a"], max_length=8),
        lambda: damaged.encode_whole(["a"]),
        lambda: damaged.encode_words([["a"]]),
    ):
        with pytest.raises(BundleError, match=r"tokenizer.json is damaged, no text can be read"):
            read()


def test_padding_is_on_the_right_with_the_pad_id() -> None:
    found = pad(
        [Encoding([2, 7, 3], [0, 0, 1]), Encoding([2, 3], [0, 0])],
        4,
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        pad_id=9,
    )
    assert found["input_ids"].tolist() == [[2, 7, 3, 9], [2, 3, 9, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert found["token_type_ids"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert {array.dtype for array in found.values()} == {np.dtype(np.int32)}


def test_what_is_too_long_keeps_its_last_token() -> None:
    found = pad([Encoding([2, 5, 6, 7, 3])], 3, inputs=("input_ids", "attention_mask"), pad_id=0)
    assert found["input_ids"].tolist() == [[2, 5, 3]]
    assert found["attention_mask"].tolist() == [[1, 1, 1]]
