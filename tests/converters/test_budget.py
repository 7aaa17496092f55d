"""A metric budget finds the layer that a precision harms, in every format, and pays only for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters import ConvertConfig, convert
from converters.sensitivity import narrow_weights
from edge.checkpoint import open_checkpoint
from edge.errors import DataError, UserError, VerificationError
from edge.precision import Precision
from edge.reference import Reference

FRAGILE = "bert.pooler.dense"
WORDS = ("the", "film", "was", "a", "good", "bad", "of", "and", "plot", "who", "is", "not", "great")


@pytest.fixture(scope="module")
def fragile(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with one layer that cannot be narrow.

    Its weights for a feature that is always 0 are a thousand times the others: they change no
    answer, but a scale that has to hold them rounds all others to 0.
    """
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint(
        tmp_path_factory.mktemp("fragile") / "bert", "bert", hidden_size=64, intermediate_size=64
    )
    weights = load_file(folder / "model.safetensors")
    for name in ("weight", "bias"):
        weights[f"bert.encoder.layer.1.output.LayerNorm.{name}"][0] = 0
    weights[f"{FRAGILE}.weight"][:, 0] = 1000 * weights[f"{FRAGILE}.weight"].abs().max()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def calibration(fragile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with the checkpoint's own clear answers as labels: it scores 1."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=1 + i % 9)) for i in range(96)]
    reference = Reference(open_checkpoint(fragile))
    outputs = reference.infer(reference.tokenizer.encode(texts, max_length=16))
    rows = [
        f"{text}\t{o['logits'].argmax()}"
        for text, o in zip(texts, outputs, strict=True)
        if np.diff(np.sort(o["logits"])[-2:]) > 0.3
    ][:48]
    assert len(rows) == 48 and len({row[-1] for row in rows}) > 1
    file = tmp_path_factory.mktemp("data") / "calibration.tsv"
    file.write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return file


def settings(source: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {"source": str(source), "output": output, "seq_length": [16], **more}


@pytest.mark.parametrize("form", ["onnx", "tflite", "coreml"])
def test_only_the_fragile_layer_stays_wider(
    fragile: Path, calibration: Path, tmp_path: Path, form: str
) -> None:
    values = settings(fragile, tmp_path / "bundle", format=[form], precision=["int8"])
    values |= {"calibration": str(calibration), "max_drop": 0.02}
    (artifact,) = convert(ConvertConfig.build(values)).artifacts
    assert [kept.layer for kept in artifact.kept_wider] == [FRAGILE]
    assert artifact.kept_wider[0].precision == "fp16"
    added = artifact.kept_wider[0].size_bytes
    # 64 x 64 weights, one byte each before, two or four after.
    assert added is not None and 3000 < added < 16000
    assert artifact.budget is not None
    assert artifact.budget.metric == "accuracy"
    assert artifact.budget.checkpoint == 1.0
    assert artifact.budget.artifact >= 0.98
    assert artifact.budget.samples == 48


def test_without_a_budget_the_fragile_layer_is_refused(fragile: Path, tmp_path: Path) -> None:
    values = settings(fragile, tmp_path / "bundle", format=["onnx"], precision=["int8"])
    with pytest.raises(VerificationError, match="onnx-int8 failed in onnxruntime"):
        convert(ConvertConfig.build(values))
    assert list(tmp_path.iterdir()) == []


def test_a_healthy_model_keeps_nothing_wider(
    bert_checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    values = settings(bert_checkpoint, tmp_path / "bundle", format=["onnx"], precision=["int8"])
    values |= {"calibration": str(calibration), "max_drop": 1.0}
    (artifact,) = convert(ConvertConfig.build(values)).artifacts
    assert artifact.kept_wider == ()
    assert artifact.budget is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_drop": 0.1}, "a metric budget needs labelled data: add --calibration FILE"),
        (
            {"precision": ["int8-static"], "format": ["onnx"]},
            "int8-static needs texts like those the app will see",
        ),
        (
            {"precision": ["int4"], "format": ["coreml"]},
            "Core ML for ios17 has no int4: the nearest is --precision palette4, or --target ios18",
        ),
        (
            {"precision": ["int8"], "target": ["legacy"], "format": ["tflite"]},
            "TFLite for legacy has no int8: the nearest is --precision int8-weights",
        ),
        ({"target": ["ios19"]}, "unknown target 'ios19': did you mean 'ios1"),
        ({"target": ["ios18"], "format": ["onnx"]}, "target ios18 needs --format coreml"),
        ({"shapes": "enumerated"}, "enumerated shapes of several inputs need --target ios18"),
        ({"max_drop": 2, "calibration": "x.tsv"}, "max_drop"),
    ],
)
def test_impossible_combinations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ConvertConfig.build({"source": "x", "output": "y", **values})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_gets_the_nearest_default_precisions() -> None:
    config = ConvertConfig.build(
        {"source": "x", "output": "y", "target": ["legacy", "ios15", "portable"]}
    )
    chosen = {t.name: [p.value for p in config.precisions(t)] for _, t in config.targets()}
    assert chosen == {
        "portable": ["fp32", "fp16", "int8"],
        "legacy": ["fp32", "fp16", "int8-weights"],
        "ios15": ["fp32", "fp16"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\tlabel\na film\tgreat\n", "label 'great' is not one of the checkpoint's 3 labels"),
        ("text\ta film\n", "empty"),
        ("question\tcontext\nwho\tthe film\n", "no column"),
    ],
)
def test_calibration_data_of_another_task_is_refused(
    bert_checkpoint: Path, tmp_path: Path, text: str, message: str
) -> None:
    data = tmp_path / "data.tsv"
    data.write_text(text)
    values = settings(bert_checkpoint, tmp_path / "bundle", calibration=str(data), max_drop=0.1)
    with pytest.raises(DataError, match=message):
        convert(ConvertConfig.build(values))
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


def test_labels_that_do_not_fit_are_refused_even_where_only_texts_are_needed(
    bert_checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("text\tlabel\na film\t7\n")
    values = settings(bert_checkpoint, tmp_path / "bundle", calibration=str(data))
    with pytest.raises(DataError, match="label '7' is not one of"):
        convert(ConvertConfig.build(values | {"format": ["onnx"], "precision": ["int8-static"]}))


def test_fake_quantisation_is_what_files_hold() -> None:
    weights = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0]])
    found = narrow_weights(weights, Precision.INT8)
    assert torch.allclose(found, torch.tensor([[1.27, -0.5, 0.0], [0.0, 0.0, 0.0]]), atol=1e-6)
    blocks = torch.ones(1, 256)
    blocks[0, 128:] = 7.0
    assert torch.allclose(narrow_weights(blocks, Precision.INT4), blocks)
    assert torch.equal(narrow_weights(weights, Precision.FP32), weights)


def test_a_bundle_copied_elsewhere_keeps_its_budget(
    bert_checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    from edge.bundle import Bundle

    values = settings(bert_checkpoint, tmp_path / "bundle", format=["onnx"], precision=["fp16"])
    values |= {"calibration": str(calibration), "max_drop": 1.0}
    manifest = convert(ConvertConfig.build(values))
    copy = Path(shutil.copytree(tmp_path / "bundle", tmp_path / "copy"))
    assert Bundle.open(copy).manifest.artifacts[0].budget == manifest.artifacts[0].budget
