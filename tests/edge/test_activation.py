"""A cross-encoder's activation is part of its answer: recorded in the bundle, applied to logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.checkpoint import open_checkpoint
from edge.engines.runner import bundle_task
from edge.errors import CheckpointError
from edge.models.activation import read_activation
from edge.tasks import get_task
from edge.tokenization import Encoding

_SIGMOID = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"sentence_transformers": _SIGMOID}, "sigmoid"),
        ({"sentence_transformers": {"version": "4.1.0"}}, None),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.Sigmoid"}, "sigmoid"),
    ],
)
def test_both_keys_of_sentence_transformers_are_read(
    values: dict[str, Any], expected: str | None
) -> None:
    assert read_activation(values, where="config.json") == expected


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.Tanh", "mine.Sigmoid", "7"])
def test_others_are_refused_by_name(name: str) -> None:
    values = {"sbert_ce_default_activation_function": name}
    with pytest.raises(CheckpointError, match=f"activation '{name}' is not supported"):
        read_activation(values, where="config.json")


@pytest.mark.parametrize(("key", "score"), [("sigmoid", 0.8807970779778823), ("none", 2.0)])
def test_a_score_is_what_the_activation_makes_of_the_logit(key: Any, score: float) -> None:
    task = get_task("text-classification", labels=("score",), activation=key)
    found = task.predict({"logits": np.asarray([2.0], np.float32)}, Encoding([2, 3]), None)  # type: ignore[arg-type]
    assert found == {"score": pytest.approx(score, abs=1e-12)}


def test_several_classes_too() -> None:
    logits = {"logits": np.asarray([1.0, -1.0], np.float32)}
    task = get_task("text-classification", labels=("a", "b"), activation="sigmoid")
    found = task.predict(logits, Encoding([2, 3]), None)  # type: ignore[arg-type]
    assert found["label"] == "a"
    assert found["scores"]["b"] == pytest.approx(1 / (1 + np.e), abs=1e-12)
    assert get_task("text-classification", labels=("a", "b")).activation == "softmax"


def test_it_reaches_the_bundle_and_what_answers_from_it(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from converters import ConvertConfig, convert
    from edge.predict import predict
    from edge.reference import Reference

    folder = tiny_checkpoint(tmp_path / "ce", "bert", labels=("score",))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"sentence_transformers": _SIGMOID}))
    assert open_checkpoint(folder).task.activation == "sigmoid"
    output = tmp_path / "bundle"
    manifest = convert(
        ConvertConfig.build(
            {
                "source": str(folder),
                "output": output,
                "format": ["onnx"],
                "precision": ["fp32"],
                "seq_length": [16],
            }
        )
    )
    assert manifest.activation == "sigmoid"
    assert bundle_task(Bundle.open(output)).activation == "sigmoid"
    reference = Reference(open_checkpoint(folder))
    encodings = reference.tokenizer.encode(["the film"], ["was good"], max_length=16)
    logit = next(iter(reference.infer(encodings)))["logits"][0]
    (found,) = predict(Bundle.open(output), ["the film"], ["was good"])
    assert found.prediction["score"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
