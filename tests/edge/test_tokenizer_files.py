"""A checkpoint's tokenizer: what it must fit, what vocab.txt says of it, and vocab.txt alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint import has_token_types, load_tokenizer, open_checkpoint
from edge.checkpoint import tokenizer as tokenizer_files
from edge.errors import CheckpointError
from edge.tokenization import Tokenizer, describe, read_otherwise, word_pieces


@pytest.fixture
def copy(bert_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(tokenizer_files, "say", lines.append)
    return lines


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def written(vocabulary: dict[str, int], added: dict[str, int] | None = None) -> str:
    return json.dumps(
        {
            "model": {"type": "WordPiece", "vocab": vocabulary},
            "added_tokens": [{"id": i, "content": name} for name, i in (added or {}).items()],
        }
    )


@pytest.mark.parametrize(
    ("vocabulary", "added"),
    [
        ({"[PAD]": 0, "a": 1, "##b": 2}, {}),
        # A hole, as a duplicate line of the original vocab.txt leaves one.
        ({"[PAD]": 0, "a": 1, "c": 3, "##d": 9}, {}),
        ({"[PAD]": 0, "a": 1}, {"[PAD]": 0, "<new>": 2, "<far>": 7}),
        ({"a": 2, "b": 0}, {}),
    ],
)
def test_each_token_stands_on_the_line_of_its_id(
    vocabulary: dict[str, int], added: dict[str, int]
) -> None:
    text = word_pieces(written(vocabulary, added))
    assert text is not None
    lines = text.split("\n")[:-1]
    everything = vocabulary | added
    assert {token: lines[index] for token, index in everything.items()} == {
        token: token for token in everything
    }
    assert len(lines) == 1 + max(everything.values())
    assert len(set(lines)) == len(lines)
    # What fills a hole is no word that splitting at white space could give.
    others = [line for index, line in enumerate(lines) if index not in everything.values()]
    assert all(re.search(r"\s", line) for line in others)


@pytest.mark.parametrize(
    "vocabulary",
    [{"a": 0, "b": 0}, {"a": 0, "b\nc": 1}, {"a": 0, "b\r": 1}, {"a": 0, "[unused 1]": 2}],
)
def test_what_lines_cannot_say_is_not_written(vocabulary: dict[str, int]) -> None:
    assert word_pieces(written(vocabulary)) is None


def test_the_bundle_s_lines_are_the_checkpoint_s_ids(copy: Path) -> None:
    edit(copy / "tokenizer.json", lambda v: v["model"]["vocab"].pop("film"))
    tokenizer = load_tokenizer(open_checkpoint(copy))
    text = word_pieces(describe(tokenizer, folder=copy)[0])
    assert text is not None
    lines = text.split("\n")[:-1]
    assert {t: lines[i] for t, i in tokenizer.get_vocab().items()} == {
        t: t for t in tokenizer.get_vocab()
    }


def more_tokens(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda v: v["model"]["vocab"].update(surplus=500))


def bare(folder: Path) -> None:
    """A tokenizer without special tokens around a text, as PreTrainedTokenizerFast reads it."""
    edit(folder / "tokenizer.json", lambda v: v.update(post_processor=None))
    edit(
        folder / "tokenizer_config.json",
        lambda v: v.update(tokenizer_class="PreTrainedTokenizerFast"),
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (more_tokens, r"ids up to 500 \('surplus'\) and the model 111 embeddings"),
        (bare, "adds no special tokens, so an empty text has no token"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(open_checkpoint(copy))
    assert "\n" not in str(caught.value)


def test_nothing_is_filled_without_a_mask_token(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "mlm", "bert", task="fill-mask")
    edit(
        folder / "tokenizer_config.json",
        lambda v: v.update(tokenizer_class="PreTrainedTokenizerFast", mask_token=None),
    )
    with pytest.raises(CheckpointError, match="has no mask token, so there is nothing to fill"):
        load_tokenizer(open_checkpoint(folder))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: None, None),
        (lambda v: v["normalizer"].update(lowercase=False), None),
        (lambda v: v["normalizer"].update(strip_accents=False), None),
        (lambda v: v.update(normalizer=None), "a\u7535b"),
        (lambda v: v["normalizer"].update(handle_chinese_chars=False), "a\u7535b"),
        (lambda v: v["normalizer"].update(clean_text=False), "a\x00b \ufffd a\u200bb"),
        (lambda v: v.update(pre_tokenizer={"type": "WhitespaceSplit"}), "it's 1,2."),
        (lambda v: v["model"].update(max_input_chars_per_word=200), "a" * 101),
    ],
)
def test_a_vocabulary_of_other_rules_than_bert_s_is_told(
    bert_checkpoint: Path, change: Callable[[Any], Any], text: str | None
) -> None:
    import tokenizers

    tokenizer = load_tokenizer(open_checkpoint(bert_checkpoint))
    values = json.loads(describe(tokenizer, folder=bert_checkpoint)[0])
    change(values)
    inner = tokenizers.Tokenizer.from_str(json.dumps(values))
    tokenizer._tokenizer = inner
    assert read_otherwise(*describe(tokenizer, folder=bert_checkpoint)) == text


def test_texts_that_are_lower_cased_first_are_told_as_such(bert_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(open_checkpoint(bert_checkpoint))
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer_files.lower(tokenizer)
    text, info = describe(tokenizer, folder=bert_checkpoint)
    assert (info.lowercase, info.strip_accents) == (True, False)
    assert read_otherwise(text, info) is None


def test_a_tokenizer_that_panics_on_a_text_is_refused(copy: Path) -> None:
    values = json.loads((copy / "tokenizer.json").read_text())
    values["post_processor"]["special_tokens"] = {"[X]": {"id": "[X]", "ids": [2], "tokens": ["a"]}}
    (copy / "tokenizer.json").write_text(json.dumps(values))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="has a tokenizer that reads no text"):
        load_tokenizer(open_checkpoint(copy))


def test_a_model_of_one_segment_is_not_told_of_two(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """RoBERTa's body with BERT's tokenizer: type 1 of a pair's second text has no row."""
    from edge.reference import Reference

    folder = tiny_checkpoint(tmp_path / "r", "roberta", type_vocab_size=1)
    edit(folder / "tokenizer_config.json", lambda v: v.pop("model_input_names", None))
    checkpoint = open_checkpoint(folder)
    assert "token_type_ids" in tokenizer_files.open_tokenizer(folder).model_input_names
    tokenizer = load_tokenizer(checkpoint)
    assert set(tokenizer("the film", "was good")) == {"input_ids", "attention_mask"}
    assert not has_token_types(checkpoint)
    reference = Reference(checkpoint)
    encodings = reference.tokenizer.encode(["the film"], ["was good"], max_length=16)
    assert next(iter(reference.infer(encodings)))["logits"].shape == (3,)


def vocabulary_only(folder: Path, **config: Any) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer.json").unlink()
    file = folder / "tokenizer_config.json"
    file.unlink()
    if config:
        file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "line", "cased"),
    [
        ({}, "texts are lower-cased, as Transformers does by default", False),
        ({"do_lower_case": True}, "texts are lower-cased, as tokenizer_config.json says", False),
        ({"do_lower_case": False}, "texts are kept in their case, as tokenizer_config", True),
    ],
)
def test_a_vocab_txt_alone_is_read_as_autotokenizer_does(
    copy: Path,
    bert_checkpoint: Path,
    said: list[str],
    config: dict[str, Any],
    line: str,
    cased: bool,
) -> None:
    vocabulary_only(copy, **config)
    tokenizer = load_tokenizer(open_checkpoint(copy))
    assert [one for one in said if line in one]
    usual = load_tokenizer(open_checkpoint(bert_checkpoint))
    ours, theirs = (Tokenizer.of(one, folder=copy) for one in (tokenizer, usual))
    for text in ("the film was good", "a-b (c)", "[MASK] film"):
        found, expected = (t.encode([text], max_length=16)[0] for t in (ours, theirs))
        assert found.input_ids == expected.input_ids
    known = ours.encode(["FILM"], max_length=16)[0].input_ids
    expected = theirs.encode(["film"], max_length=16)[0].input_ids
    assert (known == expected) is not cased


def test_a_contradiction_of_the_two_files_is_told(copy: Path, said: list[str]) -> None:
    edit(copy / "tokenizer.json", lambda v: v["normalizer"].update(lowercase=False))
    load_tokenizer(open_checkpoint(copy))
    assert [line for line in said if "differ in normalizer" in line]


def test_agreeing_files_need_no_word(bert_checkpoint: Path, said: list[str]) -> None:
    load_tokenizer(open_checkpoint(bert_checkpoint))
    assert said == []
