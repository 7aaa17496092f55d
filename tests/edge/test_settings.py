"""Every setting that a checkpoint folder can hold is handled, and a refused one says why."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge import console, settings
from edge.checkpoint import load_model, load_tokenizer, open_checkpoint
from edge.errors import CheckpointError
from edge.models.support import declared_settings, read_settings

ENCODERS = (
    *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta"),
    *("deberta-v2", "distilbert", "electra", "ernie", "esm", "eurobert", "flaubert", "funnel"),
    *("gte", "ibert", "jina_embeddings_v3", "longformer", "luke", "megatron-bert", "mobilebert"),
    *("modernbert", "mpnet", "mra", "nomic_bert", "rembert", "roberta", "roberta-prelayernorm"),
    *("roformer", "squeezebert", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod"),
)


def test_all_that_transformers_own_configuration_holds_is_named() -> None:
    import transformers

    held = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}
    assert held <= set(settings.CONFIG)


@pytest.mark.parametrize("name", ENCODERS)
def test_all_that_an_architecture_adds_is_declared_by_its_class_or_named(name: str) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(name)
    known = set(settings.CONFIG) | declared_settings(config)
    assert set(config.to_dict()) - known == set()


def test_what_a_model_asks_for_without_declaring_it_is_read() -> None:
    import transformers

    config = transformers.AutoConfig.for_model("deberta-v2")
    asked = {"position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size"}
    assert asked <= read_settings(config, "AutoModelForSequenceClassification")
    assert "made_up" not in read_settings(config, "AutoModelForSequenceClassification")


@pytest.mark.parametrize("name", ENCODERS)
def test_all_that_a_tokenizer_s_class_takes_is_named(name: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    kind = TOKENIZER_MAPPING.get(CONFIG_MAPPING[name], None)
    if kind is None:
        return  # it shares another one's
    taken: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            taken |= set(inspect.signature(base.__init__).parameters)
    assert taken - {"self", "args", "kwargs"} <= set(settings.TOKENIZER)


def test_all_that_a_saved_tokenizer_says_is_named(bert_checkpoint: Path) -> None:
    values = json.loads((bert_checkpoint / "tokenizer_config.json").read_text())
    assert set(values) <= set(settings.TOKENIZER)


def test_every_entry_says_where_the_setting_ends_up() -> None:
    tables = (settings.CONFIG, settings.TOKENIZER, settings.SENTENCE_TRANSFORMERS)
    for table in (*tables, settings.TRANSFORMER, settings.POOLING, settings.DENSE):
        for name, setting in table.items():
            assert setting.handling in ("carried", "applied", "refused", "unused"), name
            assert setting.why or setting.handling == "refused", name


@pytest.fixture
def copy(bert_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(values | changes))


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        ("config.json", "add_cross_attention", True, "add_cross_attention = True is not supported"),
        ("config.json", "quantization_config", {"load_in_8bit": True}, "floating point"),
        ("config.json", "pruned_heads", {"0": [1]}, "pruned_heads = .* is not supported"),
        ("config.json", "position_embedding_type", "relative_key", "no relative positions any mo"),
        ("config.json", "adapters", {"a": 1}, "merge the adapters"),
        ("tokenizer_config.json", "truncation_side", "left", "artifacts cut long texts at their"),
        ("tokenizer_config.json", "never_split", ["foo"], "fast tokenizers split them"),
        ("tokenizer_config.json", "do_basic_tokenize", False, "cannot leave this step out"),
        ("tokenizer_config.json", "split_special_tokens", True, "read in pieces"),
        ("tokenizer_config.json", "model_max_length", "long", "is not a number of tokens"),
        ("tokenizer_config.json", "model_max_length", -1, "is not a number of tokens"),
    ],
)
def test_what_no_bundle_can_carry_is_refused_by_name(
    copy: Path, file: str, name: str, value: Any, message: str
) -> None:
    edit(copy / file, **{name: value})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(open_checkpoint(copy))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"position_embedding_type": "absolute", "torch_dtype": "float16"}),
        ("config.json", {"is_decoder": False, "pruned_heads": {}, "chunk_size_feed_forward": 7}),
        ("config.json", {"output_hidden_states": True, "output_attentions": True}),
        ("config.json", {"return_dict": False}),
        ("tokenizer_config.json", {"padding_side": "left", "truncation_side": "right"}),
        ("tokenizer_config.json", {"never_split": None, "do_basic_tokenize": True}),
    ],
)
def test_what_changes_no_answer_is_let_through(
    copy: Path, bert_checkpoint: Path, file: str, changes: dict[str, Any]
) -> None:
    from edge.reference import Reference

    edit(copy / file, **changes)
    answers = []
    for folder in (copy, bert_checkpoint):
        reference = Reference(open_checkpoint(folder))
        encodings = reference.tokenizer.encode(["the film was good"], max_length=16)
        answers.append(next(iter(reference.infer(encodings)))["logits"].tolist())
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_what_nothing_reads_is_mentioned(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(settings, "say", said.append)
    edit(copy / "config.json", secret_sauce=3)
    open_checkpoint(copy)
    assert [line for line in said if "secret_sauce is not read" in line]
    assert console.say is not settings.say


def relative_positions(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    extra = weights["bert.encoder.layer.0.attention.self.query.weight"]
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    save_file({**weights, name: extra}, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_the_model_has_no_place_for_are_refused(copy: Path) -> None:
    relative_positions(copy)
    with pytest.raises(CheckpointError, match="does not read .*distance_embedding"):
        load_model(open_checkpoint(copy))


def no_index(folder: Path) -> Path:
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "shard.safetensors")})
    )
    return index


def pointing(name: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = no_index(folder)
        values = json.loads(index.read_text())
        first = next(iter(values["weight_map"]))
        values["weight_map"][first] = name
        index.write_text(json.dumps(values))

    return change


def extra_tensor(folder: Path) -> None:
    index = no_index(folder)
    values = json.loads(index.read_text())
    values["weight_map"]["more"] = "shard.safetensors"
    index.write_text(json.dumps(values))


def damaged(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return change


@pytest.mark.parametrize("content", ["", "{", "[1]", "7", "null", b"\xff\xfe", "[" * 100_000])
@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
)
def test_a_damaged_file_is_one_line(copy: Path, name: str, content: str | bytes) -> None:
    damaged(name, content)(copy)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
        load_tokenizer(open_checkpoint(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pointing("../outside.safetensors"), "points outside its folder: '../outside"),
        (pointing("/etc/passwd"), "points outside its folder"),
        (pointing(7), "names 7, which is not there"),
        (pointing("lost.safetensors"), "names lost.safetensors, which is not there"),
        (extra_tensor, "has no 'more', which model.safetensors.index.json says"),
        (
            lambda f: no_index(f).write_text('{"weight_map": []}'),
            "has no weight_map of tensors and files",
        ),
        (lambda f: no_index(f).write_text("{"), "is not valid JSON"),
        (damaged("model.safetensors", b""), "is corrupted"),
        (damaged("model.safetensors", b"\xff" * 64), "is corrupted"),
        (damaged("model.safetensors", (2).to_bytes(8, "little") + b"{x"), "is corrupted"),
        (damaged("adapter_config.json", "{}"), "holds an adapter .*merge_and_unload"),
        (damaged("tokenizer.json", "{}"), "tokenizer.json has no model with a vocabulary"),
        (
            damaged("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "dropout": 0.1}}'),
            "dropout = 0.1 makes other tokens",
        ),
        (
            damaged("tokenizer.json", '{"model": {"type": "Odd", "vocab": {"a": 0}}}'),
            "has a tokenizer that cannot be loaded|no special tokens|mask|ids up to",
        ),
    ],
)
def test_a_damaged_folder_is_one_line(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(open_checkpoint(copy))
    assert "\n" not in str(caught.value)


def test_shards_load_as_one_file_does(copy: Path, bert_checkpoint: Path) -> None:
    no_index(copy)
    (copy / "shard.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    index = copy / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("shard", "model-00001-of-00001"))
    ours, theirs = (load_model(open_checkpoint(f)) for f in (copy, bert_checkpoint))
    assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_weights_of_integers_are_refused(copy: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].astype(np.uint8)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'classifier.weight' is stored as U8"):
        open_checkpoint(copy)
