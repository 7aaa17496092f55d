"""Sentence embeddings: pooling, projection and normalisation are read, and end up in the graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.checkpoint import load_model, load_tokenizer, max_length, open_checkpoint
from edge.embeddings.head import Pooling
from edge.errors import CheckpointError, ConfigError
from edge.reference import Reference

TEXTS = ["the film was good", "a", "who is not of the plot"]
SIZE = 24


def sentence_checkpoint(
    folder: Path,
    tiny_checkpoint: Callable[..., Path],
    *,
    activation: str = "Tanh",
    scale: float = 1,
) -> Path:
    """What sentence-transformers writes: CLS, a dense layer from 32 to SIZE, length 1."""
    import torch
    from safetensors.torch import save_file

    tiny_checkpoint(folder, "bert", task="feature-extraction")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Norm": "Normalize"}
    write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ],
    )
    write(folder / "1_Pooling" / "config.json", pooling("cls_token"))
    dense = {"in_features": 32, "out_features": SIZE, "bias": True}
    dense["activation_function"] = f"torch.nn.modules.activation.{activation}"  # type: ignore[assignment]
    write(folder / "2_Dense" / "config.json", dense)
    source = torch.Generator().manual_seed(0)
    weights = {
        "linear.weight": torch.randn(SIZE, 32, generator=source) * 0.3 * scale,
        "linear.bias": torch.randn(SIZE, generator=source) * 0.1 * scale,
    }
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


def pooling(*modes: str) -> dict[str, Any]:
    known = ("cls_token", "mean_tokens", "max_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 32} | {f"pooling_mode_{m}": m in modes for m in known}


def write(file: Path, values: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values))


def change_modules(folder: Path, index: int, **changes: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[index].update(changes)
    write(folder / "modules.json", modules)


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_checkpoint(tmp_path_factory.mktemp("sentence") / "st", tiny_checkpoint)


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def vectors(folder: Path, **options: Any) -> np.ndarray[Any, Any]:
    reference = Reference(open_checkpoint(folder, **options))
    found = reference.infer(reference.tokenizer.encode(TEXTS, max_length=16))
    return np.stack([outputs["sentence_embedding"] for outputs in found])


def states(folder: Path) -> list[np.ndarray[Any, Any]]:
    """The encoder's last hidden states of each text, by Transformers alone."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
            for text in TEXTS
        ]


def test_vectors_are_those_worked_out_by_hand(built: Path) -> None:
    from safetensors.numpy import load_file

    checkpoint = open_checkpoint(built)
    assert checkpoint.task.name == "feature-extraction"
    assert checkpoint.embedding is not None
    assert checkpoint.embedding.model_dump() == {"pooling": "cls", "normalized": True}
    weights = load_file(built / "2_Dense" / "model.safetensors")

    def expected(pooled: list[np.ndarray[Any, Any]], unit: bool) -> np.ndarray[Any, Any]:
        found = np.tanh(np.stack(pooled) @ weights["linear.weight"].T + weights["linear.bias"])
        return found / np.linalg.norm(found, axis=1, keepdims=True) if unit else found

    hidden = states(built)
    first = [state[0] for state in hidden]
    mean = [state.mean(0) for state in hidden]
    for found, wanted in (
        (vectors(built), expected(first, True)),
        (vectors(built, normalize=False), expected(first, False)),
        (vectors(built, pooling="mean"), expected(mean, True)),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("asked", ["mean", "cls"])
@pytest.mark.parametrize("unit", [False, True])
def test_a_plain_checkpoint_takes_options(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, asked: Pooling, unit: bool
) -> None:
    folder = tiny_checkpoint(tmp_path / "plain", "distilbert", task="feature-extraction")
    pooled = [state[0] if asked == "cls" else state.mean(0) for state in states(folder)]
    found = vectors(folder, pooling=asked, normalize=unit)
    scale = np.linalg.norm(pooled, axis=1, keepdims=True) if unit else 1.0
    np.testing.assert_allclose(found, np.stack(pooled) / scale, rtol=0, atol=1e-5)
    if asked == "mean" and not unit:
        np.testing.assert_array_equal(found, vectors(folder))


def test_padding_does_not_count(built: Path) -> None:
    import torch

    for asked in ("mean", "cls"):
        model = load_model(open_checkpoint(built, pooling=asked))
        ids = torch.tensor([[2, 5, 6, 3, 0, 0]])
        with torch.no_grad():
            padded = model(input_ids=ids, attention_mask=(ids > 0).long())
            alone = model(input_ids=ids[:, :4], attention_mask=torch.ones(1, 4).long())
        torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 6e4])
def test_length_one_fits_16_bit_floats(size: float) -> None:
    """The plain formula gives zeros or not a number here: squares leave the range."""
    import torch

    from edge.embeddings.encoder import unit

    exact = torch.randn(8, 768, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * size
    found = unit(exact.half())
    assert found.dtype == torch.float16
    expected = torch.nn.functional.normalize(exact.half().double(), dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=5e-3, atol=1e-4)
    assert not bool(unit(torch.zeros(1, 8)).any())


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_mpnet_config.json"])
def test_long_texts_end_where_the_model_s_training_did(copy: Path, name: str) -> None:
    write(copy / name, {"max_seq_length": 20, "do_lower_case": True})
    checkpoint = open_checkpoint(copy)
    tokenizer = load_tokenizer(checkpoint)
    assert max_length(checkpoint, tokenizer) == 20
    tokenizer.backend_tokenizer.normalizer = None
    assert tokenizer.tokenize("FILM") == ["[UNK]"]
    assert load_tokenizer(checkpoint).tokenize("FILM") == ["film"]


def test_newer_files_and_folders_are_read(copy: Path, tmp_path: Path) -> None:
    write(copy / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": "mean"})
    found = open_checkpoint(copy).embedding
    assert found is not None
    assert found.pooling == "mean"
    moved = tmp_path / "moved"
    shutil.copytree(copy, moved / "0_Transformer")
    for name in ("modules.json", "1_Pooling", "2_Dense"):
        shutil.move(moved / "0_Transformer" / name, moved / name)
    change_modules(moved, 0, path="0_Transformer")
    np.testing.assert_array_equal(vectors(moved), vectors(copy))


def test_weights_of_projections_count_for_the_hash(built: Path, copy: Path) -> None:
    assert open_checkpoint(built).weights_sha256 == open_checkpoint(copy).weights_sha256
    shutil.rmtree(copy)
    shutil.copytree(built, copy)
    file = copy / "2_Dense" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert open_checkpoint(built).weights_sha256 != open_checkpoint(copy).weights_sha256


def bad_dense(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "2_Dense" / "config.json"
        write(file, json.loads(file.read_text()) | changes)

    return change


def pickled_dense(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "2_Dense" / "model.safetensors")
    torch.save(weights, folder / "2_Dense" / "pytorch_model.bin")
    (folder / "2_Dense" / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: write(f / "1_Pooling" / "config.json", pooling("max_tokens")),
            "1_Pooling: pooling 'max_tokens' is not supported: only mean or cls",
        ),
        (
            lambda f: write(f / "1_Pooling" / "config.json", pooling("cls_token", "mean_tokens")),
            "pooling 'cls_token and mean_tokens' is not supported: only mean or cls",
        ),
        (
            lambda f: write(f / "1_Pooling" / "config.json", {"pooling_mode": "weightedmean"}),
            "pooling 'weightedmean' is not supported: only mean or cls",
        ),
        (lambda f: write(f / "1_Pooling" / "config.json", pooling()), "pooling 'none' is not supp"),
        (lambda f: (f / "1_Pooling" / "config.json").unlink(), "cannot be read as JSON"),
        (
            lambda f: change_modules(f, 2, type="sentence_transformers.models.LSTM"),
            "module 'LSTM' is not supported: only Transformer, Pooling, Dense, Normalize",
        ),
        (
            lambda f: change_modules(f, 1, type="sentence_transformers.models.WordWeights"),
            "starts with Transformer and WordWeights: only a Transformer followed by Pooling",
        ),
        (lambda f: change_modules(f, 1, path="../elsewhere"), "points outside its folder: '../els"),
        (lambda f: write(f / "modules.json", {"a": 1}), "is not a list of modules"),
        (bad_dense(activation_function="x.Hardtanh"), "activation 'Hardtanh' is not supported: on"),
        (bad_dense(out_features=None), "2_Dense/config.json has no sizes"),
        (bad_dense(out_features=SIZE + 1), "2_Dense: weights do not fit"),
        (bad_dense(bias=False), "2_Dense: weights do not fit"),
        (bad_dense(module_input_name="token_embeddings"), "dense layer on 'token_embeddings' is"),
        (lambda f: (f / "2_Dense" / "model.safetensors").unlink(), "2_Dense has no weights"),
        (
            lambda f: (f / "2_Dense" / "model.safetensors").write_bytes(b"x"),
            "model.safetensors is corrupted",
        ),
        (pickled_dense, "2_Dense has pickled weights only, .* pass --allow-pickle if you trust"),
    ],
)
def test_folders_that_cannot_be_followed_are_refused(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(open_checkpoint(copy))
    assert "\n" not in str(caught.value)


def test_pickled_projections_load_when_allowed(built: Path, copy: Path) -> None:
    pickled_dense(copy)
    np.testing.assert_array_equal(vectors(copy, allow_pickle=True), vectors(built))


def test_other_tasks_have_nothing_to_pool(bert_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="does text-classification: pooling and normalisation"):
        open_checkpoint(bert_checkpoint, normalize=False)


def test_every_format_holds_the_whole_of_it(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Values of hundreds, whose squares 16-bit floats cannot hold, before they are normalised."""
    from converters import ConvertConfig, convert

    source = sentence_checkpoint(tmp_path / "st", tiny_checkpoint, activation="Identity", scale=200)
    assert np.abs(vectors(source, normalize=False)).max() > 256
    manifest = convert(
        ConvertConfig.build(
            {
                "source": str(source),
                "output": tmp_path / "bundle",
                "precision": ["fp32", "fp16"],
                "seq_length": [16],
            }
        )
    )
    assert len(manifest.artifacts) == 6
    assert manifest.embedding is not None
    assert manifest.embedding.model_dump() == {"pooling": "cls", "normalized": True}
    for artifact in manifest.artifacts:
        assert [(spec.name, spec.shape[-1]) for spec in artifact.outputs] == [
            ("sentence_embedding", SIZE)
        ]
        assert artifact.verification is not None
        assert artifact.verification.status == "passed"
