"""Two models whose answers are added: the second learns the error of the first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill import DistillResult
from distill.objectives import Learner
from distill.recipe.config import Stage
from distill.recipe.student import parse_spec
from distill.signals.shapes import Setting, Shape
from distill.students import build_student
from edge.checkpoint import load_model, open_checkpoint
from edge.data import Table, read_table
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny, open_teacher

BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def table(data: dict[str, Path]) -> Table:
    return read_table(data["train"])


run = partial(
    distil_tiny, student="layers=2+layers=1", recipe="residual", epochs=2, learning_rate=5e-3
)


def test_specs() -> None:
    spec = parse_spec("layers=3 + layers=1,hidden=8")
    assert spec.layers == 3 and spec.plus is not None and spec.plus.hidden == 8
    with pytest.raises(ConfigError, match="adds 3 models: add two"):
        parse_spec("layers=1+layers=1+layers=1")


def test_a_sum_starts_as_its_first_part(taught: Path, data: dict[str, Path]) -> None:
    teacher = open_teacher(taught)
    student = build_student(parse_spec("layers=2+layers=1"), teacher, table(data), seed=0)
    alone = build_student(parse_spec("layers=2"), teacher, table(data), seed=0)
    with torch.no_grad():
        found = student.model.eval()(**BATCH, output_hidden_states=True)
        expected = alone.model.eval()(**BATCH, output_hidden_states=True)
    assert torch.equal(found.logits, expected.logits)
    assert len(found.hidden_states) == 3


def test_the_second_learns_the_error_of_the_first(taught: Path, data: dict[str, Path]) -> None:
    teacher = open_teacher(taught)
    student = build_student(parse_spec("layers=2+layers=1"), teacher, table(data), seed=0)
    stage = Stage.build({"terms": [{"match": "logits", "loss": "mse"}], "train": "second"})
    shape = Shape.of(student.model.config)
    learner = Learner(student.model, stage, Setting(shape, shape, None))
    learner.train()
    # What stands still does not drop out: the error to learn is one and the same.
    assert not student.model.first.training and student.model.second.training
    assert all(
        parameter.requires_grad == name.startswith("second.")
        for name, parameter in student.model.named_parameters()
    )


def test_two_models_that_are_not_added(
    make_checkpoint: Any, data: dict[str, Path], taught: Path
) -> None:
    teacher = open_teacher(make_checkpoint(auto="AutoModelForMaskedLM"))
    with pytest.raises(ConfigError, match="the answers of fill-mask cannot be added"):
        build_student(parse_spec("layers=2+layers=1"), teacher, table(data), seed=0)
    spec = parse_spec("layers=1")
    student = build_student(spec, open_teacher(taught), table(data), seed=0)
    stage = Stage.build({"terms": [{"match": "labels"}], "train": "second"})
    with pytest.raises(ConfigError, match="trains 'second', and the student has no such part"):
        Learner(student.model, stage, Setting(Shape.of(student.model.config), None, None))


@pytest.fixture(scope="module")
def residual(
    taught: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[DistillResult, Path]:
    folder = tmp_path_factory.mktemp("residual") / "out"
    return run(taught, data, folder), folder


def test_a_run(residual: tuple[DistillResult, Path], taught: Path) -> None:
    result, folder = residual
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.model_type == "sum"
    weights = load_file(folder / "model.safetensors")
    assert weights["second.classifier.weight"].abs().max() > 0
    with torch.no_grad():
        teacher = load_model(open_checkpoint(taught))(**BATCH).logits
        model = load_model(checkpoint)
        whole, first = model(**BATCH).logits, model.first(**BATCH).logits
    # The second part brings the answers nearer to the teacher's.
    assert (whole - teacher).square().mean() < (first - teacher).square().mean()
    assert result.value is not None and result.parameters == model.num_parameters()


def test_it_converts_like_any_other(residual: tuple[DistillResult, Path], tmp_path: Path) -> None:
    from converters import ConvertConfig, convert
    from edge.precision import Precision

    _, folder = residual
    manifest = convert(
        ConvertConfig(
            source=str(folder),
            output=tmp_path / "bundle",
            format=("onnx",),
            precision=(Precision.FP32,),
            seq_length=(16,),
        )
    )
    # What is written ran, and agreed with the checkpoint.
    (artifact,) = manifest.artifacts
    assert artifact.verification is not None and "onnxruntime" in artifact.runtimes
