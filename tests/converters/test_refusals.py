"""What cannot be converted is refused in one line that names the layer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from converters import ConvertConfig, convert
from converters.base import Plan, Request
from converters.graph import ExportView
from converters.onnx import OnnxConverter
from converters.refusals import describe_failure, layer_of, require_fitting_files
from edge.errors import ConfigError, ConversionError
from edge.formats import FORMATS
from edge.precision import Precision
from edge.tasks import get_task


class Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.linalg.eigvalsh(x.transpose(1, 2) @ x).sum(-1)[:, None, None]


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(7, 7)


class Model(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(64, 32)
        self.layers = nn.ModuleList([nn.Linear(32, 32), inner])
        self.head = nn.Linear(32, 3)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(x[:, 0])}


UNDECIDED = "decides by the values in a tensor, which a graph cannot: use a mask or torch.where"


def _view(inner: nn.Module) -> ExportView:
    return ExportView(Model(inner), get_task("text-classification", labels=("a", "b", "c"))).eval()


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (
            Eigenvalues(),
            r"operator aten\._linalg_eigh\.default in layer layers\.1 \(Eigenvalues\) "
            "cannot be translated$",
        ),
        (Branch(), rf"layer layers\.1 \(Branch\) {UNDECIDED}$"),
        (Broken(), r"in layer layers\.1 \(Broken\): a and b must have same reduction dim"),
    ],
)
def test_onnx_names_the_layer(inner: nn.Module, message: str, tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask")
    task = get_task("text-classification", labels=("a", "b", "c"))
    plan = Plan(task=task, inputs=names, lengths=(16,))
    with pytest.raises(ConversionError, match=f"^ONNX export failed: {message}") as caught:
        OnnxConverter().open(_view(inner), plan, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_other_formats_can_name_it_too() -> None:
    inputs = {"input_ids": torch.ones(1, 16, dtype=torch.int32)}
    inputs["attention_mask"] = torch.ones(1, 16, dtype=torch.int32)
    with pytest.raises(Exception) as caught:
        torch.export.export(_view(Branch()), (), kwargs=inputs)
    assert describe_failure(caught.value) == f"layer layers.1 (Branch) {UNDECIDED}"


def test_an_error_from_elsewhere_is_one_line() -> None:
    assert describe_failure(ValueError("\x1b[96mthis\x1b[0m is\n  it")) == "this is it"
    assert len(describe_failure(ValueError("x" * 1000))) == 300


def test_operators_are_found_in_the_model_and_around_it() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).softmax(-1)

    program = torch.export.export(View(), (torch.zeros(1, 2),), strict=False)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    expected = ["layer 0 (Linear)", "layer 1 (ReLU)", "the task's head"]
    assert [layer_of(node) for node in nodes] == expected


@pytest.mark.parametrize(
    ("form", "precision", "bytes_each", "message"),
    [
        ("onnx", "fp32", 3, r"ONNX fp32 needs .* GB, .*: use --precision fp16 or int8 or "),
        ("onnx", "fp32", 1.5, r"ONNX fp32 .*: use --precision int8 or .*int4"),
        ("onnx", "int8", 0.1, r"ONNX int8 .*: use --format coreml"),
        ("tflite", "int8", 3, r"TFLite is exported in fp32 first, .*: use --format onnx"),
    ],
)
def test_a_model_that_no_file_can_hold_is_refused_before_the_export(
    bert_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    precision: str,
    bytes_each: float,
    message: str,
) -> None:
    with safe_open(bert_checkpoint / "model.safetensors", "numpy") as weights:
        parameters = sum(math.prod(weights.get_slice(k).get_shape()) for k in weights.keys())  # noqa: SIM118
    limited = replace(FORMATS[form], largest_bytes=int(bytes_each * parameters))
    monkeypatch.setitem(FORMATS, form, limited)
    monkeypatch.setattr("converters.write.CONVERTERS", {})
    values = {"source": str(bert_checkpoint), "output": tmp_path / "bundle"}
    values |= {"format": [form], "precision": [precision], "seq_length": [16]}
    with pytest.raises(ConfigError, match=message):
        convert(ConvertConfig.build(values))
    assert not list(tmp_path.iterdir())


def test_a_format_whose_weights_have_a_file_of_their_own_has_no_limit() -> None:
    assert FORMATS["coreml"].largest_bytes is None
    require_fitting_files(10**10, {"coreml": [Request(Precision.FP32, "ios17")]})
    require_fitting_files(10**9, {"onnx": [Request(Precision.INT8, "onnxruntime")]})
    with pytest.raises(ConfigError, match="4.08 GB, .* 2.15 GB: use --precision fp16"):
        require_fitting_files(10**9, {"onnx": [Request(Precision.FP32, "onnxruntime")]})
