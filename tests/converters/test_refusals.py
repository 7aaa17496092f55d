"""What cannot be converted is refused in one line that names the layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from converters.base import Plan
from converters.graph import ExportView
from converters.onnx import OnnxConverter
from converters.refusals import describe_failure, layer_of
from edge.errors import ConversionError
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
