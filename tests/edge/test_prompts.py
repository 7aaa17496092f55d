"""The default prompt of a sentence-transformers folder stands before every text, everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.checkpoint import load_model, load_tokenizer, open_checkpoint, save_checkpoint
from edge.embeddings import head
from edge.errors import CheckpointError, ConfigError
from edge.reference import Reference
from edge.tokenization import with_prompt, without_prompt

PROMPT = "good film: "
TEXTS = ["the film was good", "A plot", "who is not of the plot"]


def write(file: Path, values: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-pooled encoder without prompts."""
    folder = tmp_path_factory.mktemp("prompts") / "plain"
    tiny_checkpoint(folder, "bert", task="feature-extraction")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ],
    )
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    return folder


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path / "copy"))
    say_prompt(folder)
    return folder


def say_prompt(folder: Path, **changes: Any) -> None:
    values = {"prompts": {"query": PROMPT, "passage": ""}, "default_prompt_name": "query"}
    write(folder / "config_sentence_transformers.json", values | changes)


def vectors(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    reference = Reference(open_checkpoint(folder))
    found = reference.infer(reference.tokenizer.encode(texts, max_length=32))
    return np.stack([outputs["sentence_embedding"] for outputs in found])


def test_vectors_are_those_of_the_prompt_and_the_text(plain: Path, copy: Path) -> None:
    expected = vectors(plain, [PROMPT + text for text in TEXTS])
    np.testing.assert_allclose(vectors(copy, TEXTS), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - vectors(plain, TEXTS)).max() > 0.01


def test_a_prompt_that_no_name_chooses_is_not_put(
    plain: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(head, "say", said.append)
    say_prompt(copy, default_prompt_name=None)
    np.testing.assert_array_equal(vectors(copy, TEXTS), vectors(plain, TEXTS))
    assert any("texts go without: query" in line for line in said)


def test_long_texts_are_cut_after_the_prompt(copy: Path, plain: Path) -> None:
    long = " ".join(["plot"] * 60)
    ours, theirs = (Reference(open_checkpoint(folder)).tokenizer for folder in (copy, plain))
    found = ours.encode([long], max_length=12)[0].input_ids
    assert found == theirs.encode([PROMPT + long], max_length=12)[0].input_ids


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(copy: Path, tmp_path: Path) -> None:
    from converters import ConvertConfig, convert

    # 30 tokens and two special ones.
    say_prompt(copy, prompts={"query": "the film " * 15})
    config = ConvertConfig(source=str(copy), output=tmp_path / "bundle", seq_length=(16, 32))
    with pytest.raises(ConfigError, match="and its prompt take 32 tokens of every text, and the"):
        convert(config)


def test_the_mean_leaves_out_a_prompt_that_does_not_count(copy: Path, plain: Path) -> None:
    """Sentence-transformers sets the mask of [CLS] and the prompt's tokens to 0."""
    import torch
    import transformers

    write(
        copy / "1_Pooling" / "config.json",
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    )
    model = transformers.AutoModel.from_pretrained(plain).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    left_out = len(tokenizer(PROMPT.strip())["input_ids"]) - 1
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(PROMPT + text, return_tensors="pt")).last_hidden_state[0]
        expected.append(states[left_out:].mean(0).numpy())
    np.testing.assert_allclose(vectors(copy, TEXTS), np.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("include", [True, False])
def test_a_saved_student_says_it_as_its_folder_did(
    copy: Path, tmp_path: Path, include: bool
) -> None:
    write(
        copy / "1_Pooling" / "config.json",
        {"pooling_mode_mean_tokens": True, "include_prompt": include},
    )
    checkpoint = open_checkpoint(copy)
    (tmp_path / "saved").mkdir()
    save_checkpoint(load_model(checkpoint), load_tokenizer(checkpoint), tmp_path / "saved")
    np.testing.assert_allclose(
        vectors(tmp_path / "saved", TEXTS), vectors(copy, TEXTS), rtol=0, atol=1e-6
    )
    said = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert said["prompts"][said["default_prompt_name"]] == PROMPT
    plain_ids = load_tokenizer(open_checkpoint(copy, task="feature-extraction"))("plot")
    assert len(plain_ids["input_ids"]) > 3


def test_putting_a_prompt_twice_puts_it_once(plain: Path) -> None:
    text = (plain / "tokenizer.json").read_text()
    once = with_prompt(text, PROMPT)
    assert with_prompt(once, PROMPT) == once
    assert json.loads(without_prompt(once, PROMPT))["post_processor"]["single"][0] == {
        "SpecialToken": {"id": "[CLS]", "type_id": 0}
    }


def trained(kind: str) -> Any:
    """A small tokenizer of a kind, with a token before a text and one after it."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    texts = ["query: the film was good, 12 of 3", "a plot (so) - A The Film x 's .5"] * 3
    special = ["<s>", "</s>", "<unk>"]
    options: dict[str, Any] = {"special_tokens": special, "show_progress": False}
    if kind == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", **options)
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=letters, **options)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


def test_other_tokenizers_carry_it_too_and_their_pairs_stay() -> None:
    import tokenizers

    plain = trained("unigram")
    prompted = tokenizers.Tokenizer.from_str(with_prompt(plain.to_str(), PROMPT))
    for text in (*TEXTS, "film: 5", "?"):
        assert prompted.encode(text).ids == plain.encode(PROMPT + text).ids
    ours, theirs = (one.encode("the film", "a plot") for one in (prompted, plain))
    assert (ours.ids, ours.type_ids) == (theirs.ids, theirs.type_ids)


@pytest.mark.parametrize(("kind", "prompt"), [("bytes", PROMPT), ("unigram", "query")])
def test_a_prompt_that_changes_the_first_word_is_refused(kind: str, prompt: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be carried: .* default_prompt_name to null"):
        with_prompt(trained(kind).to_str(), prompt)


def test_it_is_in_the_bundle_and_every_artifact(plain: Path, copy: Path, tmp_path: Path) -> None:
    from converters import ConvertConfig, convert
    from edge.predict import predict

    write(
        copy / "1_Pooling" / "config.json",
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    )
    manifest = convert(
        ConvertConfig.build(
            {
                "source": str(copy),
                "output": tmp_path / "bundle",
                "precision": ["fp32"],
                "seq_length": [32],
            }
        )
    )
    assert manifest.tokenizer.prompt == PROMPT
    assert len(manifest.artifacts) == 3
    expected = vectors(copy, TEXTS[:1])[0]
    for found in predict(Bundle.open(tmp_path / "bundle"), TEXTS[:1]):
        np.testing.assert_allclose(found.prediction["embedding"], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "names no text of pr"),
        ("config_sentence_transformers.json", {"prompts": ["q"]}, "must be an object of names"),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim = 8 is not supp"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "x"}, "'x' is not one of"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        ("config_sentence_transformers.json", [], "must hold an object"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "is not a number of tokens"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "is not a number of tokens"),
        ("sentence_bert_config.json", {"model_args": {"a": 1}}, "model_args = .* is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": 7}, "pooling '7' is not supported"),
        ("1_Pooling/config.json", "x", "must hold an object"),
        ("modules.json", [{"idx": 0}], "is not a list of modules"),
        ("modules.json", [{"idx": 0, "path": "", "type": "Router"}], "starts with Router"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    copy: Path, file: str, values: Any, message: str
) -> None:
    write(copy / file, values)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dot", "euclidean", "manhattan"])
def test_vectors_are_compared_as_the_folder_says(copy: Path, name: str) -> None:
    from edge.tasks.feature_extraction import similarities

    say_prompt(copy, similarity_fn_name=name)
    checkpoint = open_checkpoint(copy)
    assert (checkpoint.similarity, checkpoint.task.similarity) == (name, name)
    a, b = np.asarray([[1.0, 2.0]]), np.asarray([[3.0, -1.0]])
    expected = {"dot": 1.0, "euclidean": -np.sqrt(13.0), "manhattan": -5.0}[name]
    assert similarities(a, b, name)[0] == pytest.approx(expected)  # type: ignore[arg-type]
