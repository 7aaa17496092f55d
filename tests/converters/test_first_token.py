"""The last layer for the first token only, where no output reads another, in every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from converters.base import Plan, Request
from converters.first_token import FirstToken, UnsupportedCut
from converters.graph import ExportView
from converters.write import get_converter
from edge.checkpoint import load_model, open_checkpoint
from edge.precision import Precision
from tests.models import ARCHITECTURES

NAMES = ("input_ids", "attention_mask")
LENGTH = 16
# Their layers have no product that can be told apart from one that mixes tokens.
UNCUT = ("squeezebert", "bilstm")
EVERY_TOKEN = [
    ("token-classification", None),
    ("question-answering", None),
    ("fill-mask", None),
    ("feature-extraction", "mean"),
]
FIRST_TOKEN = [("text-classification", None), ("feature-extraction", "cls")]


def _view(source: Path, task: str, pooling: Any = None) -> ExportView:
    checkpoint = open_checkpoint(source, task=task, pooling=pooling)
    return ExportView(load_model(checkpoint, attention="eager"), checkpoint.task).eval()


def _tokens_computed(view: ExportView, inputs: dict[str, torch.Tensor]) -> list[int]:
    """How many tokens each layer's feed-forward gets."""
    tokens: list[int] = []
    for name, module in view.model.named_modules():
        if name.endswith("intermediate.dense"):
            module.register_forward_hook(lambda _, given, __: tokens.append(given[0].shape[1]))
    with torch.no_grad():
        view(**inputs)
    return tokens


def _inputs(lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return {"input_ids": ids.int(), "attention_mask": mask.int()}


@pytest.mark.parametrize(("task", "pooling"), [*FIRST_TOKEN, *EVERY_TOKEN])
def test_the_last_layer_computes_what_the_outputs_read(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, task: str, pooling: str | None
) -> None:
    view = _view(tiny_checkpoint(tmp_path / "model", task=task), task, pooling)
    last = 1 if (task, pooling) in FIRST_TOKEN else 9
    assert _tokens_computed(view, _inputs([9, 6])) == [9, last]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("task", "pooling"), FIRST_TOKEN)
def test_outputs_are_those_of_the_whole_layer(
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    architecture: str,
    task: str,
    pooling: str | None,
) -> None:
    view = _view(tiny_checkpoint(tmp_path / "model", architecture, task=task), task, pooling)
    assert (view._cut is None) == (architecture in UNCUT)
    for lengths in ([5], [16, 9], [31, 4, 20]):
        inputs = _inputs(lengths)
        with torch.no_grad():
            outputs, whole = view(**inputs), view._outputs(inputs, FirstToken(None))
        for name, expected in whole.items():
            torch.testing.assert_close(outputs[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format_name", ["onnx", "tflite", "coreml"])
@pytest.mark.parametrize(("task", "last"), [("text-classification", 1), ("fill-mask", LENGTH)])
def test_exported_graphs_compute_no_more(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, format_name: str, task: str, last: int
) -> None:
    view = _view(tiny_checkpoint(tmp_path / "model", task=task, intermediate_size=48), task)
    plan = Plan(open_checkpoint(tmp_path / "model").task, NAMES, (LENGTH,), flexible=False)
    export = get_converter(format_name).open(view, plan, tmp_path)
    path = tmp_path / {"onnx": "m.onnx", "tflite": "m.tflite", "coreml": "m.mlpackage"}[format_name]
    target = {"onnx": "portable", "tflite": "litert", "coreml": "ios17"}[format_name]
    export.write(Request(Precision.FP32, target), path)
    shapes = {"onnx": _onnx_shapes, "tflite": _tflite_shapes, "coreml": _coreml_shapes}[format_name]
    # Only the feed-forward of a layer has 48 channels; its tokens are what precedes them.
    tokens = [shape[-2] if len(shape) > 1 else 1 for shape in shapes(path) if shape[-1:] == (48,)]
    assert tokens[0] == LENGTH
    assert tokens[-1] == last


def _onnx_shapes(path: Path) -> list[tuple[int, ...]]:
    """The shapes of what operators give, as ONNX Runtime computes them."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    names = [node.output[0] for node in model.graph.node if node.op_type in ("MatMul", "Gelu")]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {name: value.numpy() for name, value in _inputs([LENGTH]).items()}
    return [tuple(value.shape) for value in session.run(names, inputs)]


def _tflite_shapes(path: Path) -> list[tuple[int, ...]]:
    from converters.tflite.flatbuffer import Program
    from converters.tflite.graph import shape_of

    (graph,) = Program(path).graphs
    return [shape_of(graph, int(operator.outputs[0])) for operator in graph.operators]


def _coreml_shapes(path: Path) -> list[tuple[int, ...]]:
    from edge.engines.mil.package import read_model

    model, _ = read_model(path)
    (function,) = model.mlProgram.functions.values()
    operations = function.block_specializations[function.opset].operations
    outputs = [o.outputs[0] for o in operations if not o.type.startswith("const")]
    shapes = [output.type.tensorType.dimensions for output in outputs]
    return [tuple(dimension.constant.size for dimension in shape) for shape in shapes]


def test_mixing_tokens_is_refused() -> None:
    states, weight = torch.randn(2, 5, 4), torch.randn(4, 4)
    readings: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: x.sum(1),
        lambda x: x.mean(1),
        lambda x: x.softmax(1),
        lambda x: x[:, 1],
        lambda x: x[:, -1],
        lambda x: x.flip(1),
        lambda x: x.transpose(1, 2) @ x,
        lambda x: torch.cat([x, x], 1),
        lambda x: x.reshape(10, 4),
        lambda x: states.clone().add_(x),
    ]
    for read in readings:
        with pytest.raises(UnsupportedCut), FirstToken(0):
            read(torch.nn.functional.linear(states, weight))


def test_outputs_of_one_token_are_refused() -> None:
    mode = FirstToken(0)
    with mode:
        logits = torch.nn.functional.linear(torch.randn(2, 5, 4), torch.randn(3, 4))
        first = logits[:, 0]
    assert mode.require_whole({"logits": first})["logits"].shape == (2, 3)
    with pytest.raises(UnsupportedCut):
        mode.require_whole({"logits": logits})
