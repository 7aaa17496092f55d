"""A student with tokens of its own: what it reads, where it starts, what can be compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.recipe.config import recipe_file
from distill.recipe.student import parse_spec
from distill.students import build_student
from edge.checkpoint import open_checkpoint
from edge.data import read_table
from edge.errors import ConfigError
from tests.distill.conftest import add_words, distil_tiny, open_teacher

# Less than the 17 tokens of the tiny world's teacher: letters and parts of words.
SIZE = 16


@pytest.fixture(scope="module")
def wordy(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher that knows the answers, with as many tokens that no text has."""
    return add_words(taught, tmp_path_factory.mktemp("wordy"))


run = partial(
    distil_tiny,
    student="layers=2,vocabulary=60",
    recipe="extreme-vocab",
    batch_size=16,
    epochs=1,
)


def test_tokens_start_as_the_mean_of_the_teachers_pieces(
    wordy: Path, data: dict[str, Path]
) -> None:
    teacher = open_teacher(wordy)
    table = read_table(data["train"])
    student = build_student(parse_spec("layers=1,vocabulary=60"), teacher, table, seed=0)
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    assert len(ours) <= 60
    assert student.checkpoint.config.vocab_size == student.model.config.vocab_size == len(ours)
    old = teacher.model.get_input_embeddings().weight
    new = student.model.get_input_embeddings().weight
    shared = sorted(set(ours) & set(theirs))
    assert "film" in shared and "[CLS]" in shared
    for token in shared:
        assert torch.equal(new[ours[token]], old[theirs[token]]), token
    # A part of a word that the teacher does not know is its unknown token.
    part = next(token for token in ours if token.startswith("##"))
    assert torch.equal(new[ours[part]], old[theirs["[UNK]"]])
    again = build_student(parse_spec("layers=1,vocabulary=60"), teacher, table, seed=0)
    assert again.tokenizer.get_vocab() == ours


def test_a_run_live_and_cached(wordy: Path, data: dict[str, Path], tmp_path: Path) -> None:
    result = run(wordy, data, tmp_path / "live")
    run(wordy, data, tmp_path / "cached", teacher_cache=tmp_path / "cache")
    live, cached = (load_file(tmp_path / n / "model.safetensors") for n in ("live", "cached"))
    assert {
        name
        for name, value in live.items()
        if not torch.allclose(value, cached[name], atol=2e-3) and not name.endswith("key.bias")
    } == set()
    # The teacher is measured, and asked, in its own tokens.
    assert result.teacher_value is not None and result.teacher_value > 0.9
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "live")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "live")
    assert len(tokenizer) == model.config.vocab_size <= 60
    assert torch.isfinite(model(**tokenizer(["a great film"], return_tensors="pt")).logits).all()
    assert open_checkpoint(tmp_path / "live").config.num_hidden_layers == 2


def test_hidden_states_of_whole_texts(wordy: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """Where a recipe leaves open by what states are compared, it is by the mean of each text."""
    recipe = yaml.safe_load(recipe_file("kd-hidden").read_text())
    (term,) = (t for t in recipe["stages"][0]["terms"] if t["match"] == "hidden_states")
    assert "tokens" not in term
    for tokens in ("mean", "all"):
        term["tokens"] = tokens
        (tmp_path / f"{tokens}.yaml").write_text(yaml.safe_dump(recipe))
    run(wordy, data, tmp_path / "open", recipe="kd-hidden")
    run(wordy, data, tmp_path / "mean", recipe=str(tmp_path / "mean.yaml"))
    found, expected = (load_file(tmp_path / n / "model.safetensors") for n in ("open", "mean"))
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    with pytest.raises(ConfigError, match="match: hidden_states compares token by token, and the"):
        run(wordy, data, tmp_path / "out", recipe=str(tmp_path / "all.yaml"))


def test_terms_that_compare_tokens(wordy: Path, data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="match: attention_probs compares token by token, and"):
        run(wordy, data, tmp_path / "out", recipe="minilm")
    with pytest.raises(ConfigError, match="runs student and teacher on the same tokens"):
        run(wordy, data, tmp_path / "out", recipe="blockwise")


def test_vocabularies_that_cannot_be(
    taught: Path, make_checkpoint: Callable[..., Path], data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the teacher has 17 tokens, ask for fewer"):
        run(taught, data, tmp_path / "out", student="layers=1,vocabulary=17")
    tagger = open_teacher(make_checkpoint(auto="AutoModelForTokenClassification"))
    with pytest.raises(ConfigError, match="token-classification answers for each token"):
        build_student(
            parse_spec(f"layers=1,vocabulary={SIZE}"), tagger, read_table(data["train"]), seed=0
        )


def with_added(source: Path, folder: Path) -> Path:
    """A copy with a token of each kind that a person may add: special, plain, and for a role."""
    import transformers

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["[EMO]"], special_tokens=True)
    tokenizer.add_tokens(["covid"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[URL]"]})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    torch.manual_seed(1)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", [46, 60])
def test_added_tokens_stay_and_count(
    wordy: Path, data: dict[str, Path], tmp_path: Path, size: int
) -> None:
    teacher = open_teacher(with_added(wordy, tmp_path / "added"))
    table = read_table(data["train"])
    student = build_student(parse_spec(f"layers=1,vocabulary={size}"), teacher, table, seed=0)
    student.model.save_pretrained(tmp_path / "student")
    student.tokenizer.save_pretrained(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    rows = model.get_input_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size == len(rows) == size
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    old = teacher.model.get_input_embeddings().weight
    special = set(teacher.tokenizer.all_special_tokens)
    assert set(tokenizer.all_special_tokens) == special and "[URL]" in special
    for token in ("[EMO]", "covid", "[URL]", "[MASK]"):
        (index,) = tokenizer.encode(token, add_special_tokens=False)
        assert tokenizer.convert_ids_to_tokens(index) == token
        assert torch.equal(rows[index], old[teacher.tokenizer.get_vocab()[token]]), token
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.model_max_length == teacher.tokenizer.model_max_length


def test_a_vocabulary_that_the_texts_do_not_fit_in(
    wordy: Path, taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    table = read_table(data["train"])
    for size in (5, 41):
        with pytest.raises(ConfigError, match=f"vocabulary={size} is less than the 42 tokens that"):
            build_student(
                parse_spec(f"layers=1,vocabulary={size}"), open_teacher(wordy), table, seed=0
            )
    least = build_student(parse_spec("layers=1,vocabulary=42"), open_teacher(wordy), table, seed=0)
    assert len(least.tokenizer) == 42
    with pytest.raises(ConfigError, match="5 special or added ones .* as the teacher has 17"):
        run(taught, data, tmp_path / "out", student="layers=1,vocabulary=5")


def test_every_id_of_a_token_in_the_configuration_is_the_new_one(
    wordy: Path, data: dict[str, Path]
) -> None:
    teacher = open_teacher(wordy)
    vocabulary = teacher.tokenizer.get_vocab()
    teacher.model.config.sep_token_id = vocabulary["[SEP]"]
    teacher.model.config.eos_token_id = vocabulary["zzz3"]
    spec = parse_spec("layers=1,vocabulary=45")
    student = build_student(spec, teacher, read_table(data["train"]), seed=0)
    config = student.model.config
    assert config.sep_token_id == student.tokenizer.sep_token_id
    # A token that is gone has no number, instead of another token's.
    assert config.eos_token_id is None


def test_the_number_of_tokens_is_said(
    wordy: Path, data: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(wordy, data, tmp_path / "out", student="layers=1,vocabulary=45", recipe="kd", max_steps=1)
    assert "vocabulary: 45 of 45 tokens\n" in capfd.readouterr().err
