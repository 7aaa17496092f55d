"""Tokens added to a vocabulary: packs give their ids as the bundle does, or refuse them by name."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.packs import ort_text
from converters.packs.mediapipe import MediapipePacker
from converters.packs.text_graph import text_nodes
from converters.packs.texts import TextDifference, require_same
from edge.bundle import Bundle
from edge.engines.runner import bundle_tokenizer
from edge.errors import BundleError, ConfigError, VerificationError

ADDED = ("newtok", "goods", "<user>", "<user> x")
PARTS = (
    *ADDED,
    *(
        "[MASK]",
        "[SEP]",
        "NEWTOK",
        "Newtok",
        "new",
        "tok",
        "newto",
        "<us",
        "x<us",
        "user>",
        "[",
        "-",
    ),
    *(" ", " ", "\n", "film", "The", "é", "x", "xyz", "猫", "😀"),
)
# The operators use some of these themselves.
PRIVATE = ("\ue000", "\uf8ff", "\U00100000", "\U0010fff0")


@pytest.fixture
def with_tokenizer(bert_bundle: Path, tmp_path: Path) -> Callable[[Any], Bundle]:
    """The bundle with another tokenizer in the place of its own."""

    def make(inner: Any, **info: Any) -> Bundle:
        (tmp_path / "tokenizer.json").write_text(inner.to_str(), encoding="utf-8")
        opened = Bundle.open(bert_bundle)
        tokenizer = opened.manifest.tokenizer.model_copy(update=info)
        manifest = opened.manifest.model_copy(update={"tokenizer": tokenizer})
        return dataclasses.replace(opened, path=tmp_path, manifest=manifest)

    return make


@pytest.fixture
def word_pieces(bert_bundle: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(bert_bundle / "tokenizer.json"))


@pytest.fixture
def byte_pairs() -> Any:
    """As RoBERTa's, of bytes and a few words."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(PARTS, trainer)
    inner.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return inner


def add(inner: Any, *tokens: str, **how: Any) -> Any:
    import tokenizers

    for token in tokens:
        special = token.startswith("<")
        flags = {"normalized": not special, "special": special, **how}
        inner.add_tokens([tokenizers.AddedToken(token, **flags)])
    return inner


def agree(bundle: Bundle, folder: Path, *, parts: tuple[str, ...], texts: int) -> None:
    """Random texts of tokens, parts of them and other characters get the bundle's ids."""
    nodes = text_nodes(bundle, pair=False, max_length=32)
    ort_text._save_tokenizer(bundle, nodes, False, folder / "tokenizer.onnx")
    run = ort_text._Session(folder / "tokenizer.onnx").run
    tokenizer, choose = bundle_tokenizer(bundle), random.Random(0)
    for _ in range(texts):
        text = "".join(choose.choice(parts) for _ in range(choose.randrange(9)))
        (expected,) = tokenizer.encode([text], max_length=32)
        found = run(text, None)
        count = int(found["attention_mask"].sum())
        assert found["input_ids"][0, :count].tolist() == expected.input_ids, ascii(text)


def test_word_pieces_with_added_tokens(
    with_tokenizer: Callable[..., Bundle], word_pieces: Any, tmp_path: Path
) -> None:
    bundle = with_tokenizer(add(word_pieces, *ADDED))
    agree(bundle, tmp_path, parts=(*PARTS, *PRIVATE), texts=400)


def test_byte_pairs_with_added_tokens(
    with_tokenizer: Callable[..., Bundle], byte_pairs: Any, tmp_path: Path
) -> None:
    inputs = ("input_ids", "attention_mask")
    bundle = with_tokenizer(add(byte_pairs, *ADDED, ">x<", "a=b"), pad_token_id=1, inputs=inputs)
    agree(bundle, tmp_path, parts=PARTS, texts=400)


@pytest.mark.parametrize(
    ("token", "how", "message"),
    [
        ("heart❤", {}, "'heart❤' is looked for in normalised texts"),
        ("two words", {}, "'two words' is looked for in normalised texts"),
        ("whole", {"single_word": True}, "'whole' is for whole words"),
    ],
)
def test_word_pieces_that_operators_cannot_find_are_named(
    with_tokenizer: Callable[..., Bundle],
    word_pieces: Any,
    token: str,
    how: dict[str, Any],
    message: str,
) -> None:
    bundle = with_tokenizer(add(word_pieces, token, **how))
    with pytest.raises(ConfigError, match=message):
        text_nodes(bundle, pair=False, max_length=32)


def test_mediapipe_knows_no_added_tokens(
    with_tokenizer: Callable[..., Bundle], word_pieces: Any, bert_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_bytes((bert_bundle / "vocab.txt").read_bytes())
    bundle = with_tokenizer(add(word_pieces, "newtok"))
    with pytest.raises(ConfigError, match="knows no added tokens, this bundle's has 'newtok'"):
        MediapipePacker().check(bundle, pair=False)


def test_one_text_that_differs_is_enough() -> None:
    difference = TextDifference(text="a [SEP]", text_pair=None, expected=("a",), found=("b",))
    with pytest.raises(VerificationError, match=r"on 1 text, such as 'a \[SEP\]'"):
        require_same("ort-text", [difference])
    require_same("ort-text", [])


@pytest.mark.parametrize("content", ['{"model": 5}', "[]", "{}", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_of_another_shape_is_one_line(
    with_tokenizer: Callable[..., Bundle], word_pieces: Any, tmp_path: Path, content: str
) -> None:
    bundle = with_tokenizer(word_pieces)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises((BundleError, ConfigError)) as caught:
        ort_text.OrtTextPacker().check(bundle, pair=False)
        text_nodes(bundle, pair=False, max_length=32)
    assert "\n" not in str(caught.value)
