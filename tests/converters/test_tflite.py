"""TFLite files: every precision right in each runtime, its integers as described, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.base import Plan, Request
from converters.graph import ExportView
from converters.tflite import TfliteConverter, TfliteExport
from converters.tflite.flatbuffer import Program
from converters.tflite.graph import Kind, Type
from converters.tflite.integers import pack
from edge.bundle import KeptWider
from edge.checkpoint import load_model, open_checkpoint
from edge.engines import get_engine
from edge.errors import ConversionError
from edge.precision import Precision
from edge.quantization import quantize

LENGTHS = (16, 32)
NAMES = ("input_ids", "attention_mask", "token_type_ids")
QUERY = "bert.encoder.layer.0.attention.self.query"
POOLER = "bert.pooler.dense"
WORDS = "bert.embeddings.word_embeddings"


class Exported:
    """A tiny BERT whose width holds two blocks of 4-bit weights, and its TFLite export."""

    def __init__(self, folder: Path, tiny_checkpoint: Callable[..., Path], task: str) -> None:
        source = tiny_checkpoint(
            folder / "checkpoint", "bert", task=task, hidden_size=256, intermediate_size=256
        )
        _calm(source)
        checkpoint = open_checkpoint(str(source))
        self.folder = folder
        self.model = load_model(checkpoint, attention="eager")
        self.view = ExportView(self.model, checkpoint.task).eval()
        self.samples = [_sample(length) for length in (5, 16, 20, 32, 9, 12, 28, 7)]
        plan = Plan(checkpoint.task, NAMES, LENGTHS, calibration=tuple(self.samples))
        self.export: TfliteExport = TfliteConverter().open(self.view, plan, folder)

    def write(
        self, precision: Precision, target: str = "litert", **wider: Precision
    ) -> tuple[Path, tuple[KeptWider, ...]]:
        path = self.folder / f"{precision.value}-{target}-{len(wider)}.tflite"
        request = Request(precision, target, {k.replace("__", "."): v for k, v in wider.items()})
        return path, self.export.write(request, path)

    def error(self, path: Path, engine: str) -> float:
        """The largest difference to the checkpoint over texts of all lengths, padded or not."""
        found, scale = 0.0, 0.0
        with get_engine(engine).open(path) as session, torch.no_grad():
            for sample in self.samples:
                tensors = {name: torch.from_numpy(x) for name, x in sample.items()}
                expected = {name: x.numpy() for name, x in self.view(**tensors).items()}
                count = sample["input_ids"].shape[1]
                for length in (n for n in LENGTHS if n >= count):
                    padding = ((0, 0), (0, length - count))
                    outputs = session.run({n: np.pad(x, padding) for n, x in sample.items()})
                    for name, values in expected.items():
                        ours = outputs[name]
                        ours = ours[:, :count] if values.ndim == 3 else ours
                        assert np.isfinite(ours).all()
                        found = max(found, float(np.abs(ours - values).max()))
                        scale = max(scale, float(np.abs(values).max()))
        return found / scale


def _calm(folder: Path) -> None:
    """As wide a model with the weights of a narrow one attends to single words only."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    scaled = {
        name: x * (0.3 if "encoder" in name and x.ndim == 2 else 1) for name, x in weights.items()
    }
    save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})


def _sample(length: int) -> dict[str, np.ndarray[Any, Any]]:
    ids = np.random.default_rng(length).integers(5, 100, (1, length)).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


@pytest.fixture(scope="module")
def bert(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return Exported(tmp_path_factory.mktemp("bert"), tiny_checkpoint, "text-classification")


def runtime(name: str) -> str:
    found = get_engine(name).availability()
    if not found.available:
        pytest.skip(f"{name}: {found.reason}")
    return name


def tensors(path: Path) -> list[tuple[Any, Any, Any]]:
    """Each tensor with values that an operator reads: operator, tensor, values."""
    program = Program(path)
    return [
        (program.kind(operator), tensor, program.model.buffers[tensor.buffer].data)
        for _, operator, _, tensor in program.constants()
    ]


def named(path: Path, name: str, kind: int) -> tuple[Any, Any]:
    """The first tensor of a name and a type, and its bytes."""
    found = [
        (t, data) for _, t, data in tensors(path) if t.name.decode() == name and t.type == kind
    ]
    return found[0]


def _size(program: Program, tensor: Any) -> int:
    data = program.model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


@pytest.mark.parametrize("engine", ["litert", "tflite-runtime"])
@pytest.mark.parametrize(
    ("precision", "most"),
    [
        (Precision.FP32, 1e-5),
        (Precision.FP16, 1e-2),
        (Precision.INT8_WEIGHTS, 0.1),
        (Precision.INT8_STATIC, 0.2),
    ],
)
def test_every_runtime_answers_as_the_checkpoint(
    bert: Exported, precision: Precision, most: float, engine: str
) -> None:
    runtime(engine)
    path, kept = bert.write(precision)
    assert kept == ()
    assert bert.error(path, engine) < most


@pytest.mark.parametrize(("precision", "most"), [(Precision.INT8, 0.1), (Precision.INT4, 0.8)])
def test_litert_answers_as_the_checkpoint(
    bert: Exported, precision: Precision, most: float
) -> None:
    path, kept = bert.write(precision)
    assert kept == ()
    assert bert.error(path, "litert") < most


def test_xnnpack_takes_nearly_every_node_and_the_session_says_so(bert: Exported) -> None:
    path, _ = bert.write(Precision.FP32)
    with get_engine("litert").open(path) as session:
        session.run(_sample(LENGTHS[0]))
        placement = session.placement()
    assert placement is not None
    # Embeddings are looked up by built-in kernels; both kinds together are all nodes of a length.
    assert 0 < placement["CPU"] < placement["XNNPACK"]
    assert sum(placement.values()) == len(Program(path).graphs[0].operators)


@pytest.mark.parametrize(
    "precision", [Precision.INT8, Precision.INT8_WEIGHTS, Precision.INT8_STATIC]
)
def test_eight_bits_are_those_of_the_definition(bert: Exported, precision: Precision) -> None:
    path, _ = bert.write(precision)
    weight = bert.model.get_submodule(POOLER).weight.detach().numpy()
    tensor, data = named(path, f"{POOLER}.weight", Type.INT8)
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    assert np.array_equal(
        data.view(np.int8).reshape(weight.shape), np.rint(weight / scale[:, None])
    )
    assert np.allclose(tensor.quantization.scale, scale)
    assert not tensor.quantization.zeroPoint.any()


def test_a_norm_before_a_matrix_does_not_change_its_integers(bert: Exported) -> None:
    """The exporter multiplies norms into the matrices behind them."""
    path, _ = bert.write(Precision.INT8)
    weight = bert.model.get_submodule(QUERY).weight.detach().numpy()
    _, data = named(path, f"{QUERY}.weight", Type.INT8)
    expected, _ = quantize(weight, 8)
    # The factor of the scores is part of the scales; it may move a tie.
    assert (data.view(np.int8).reshape(weight.shape) != expected).mean() < 1e-3


@pytest.mark.parametrize(("precision", "bits"), [(Precision.INT8, 8), (Precision.INT4, 4)])
def test_rows_of_an_embedding_have_scales_of_their_own(
    bert: Exported, precision: Precision, bits: int
) -> None:
    path, _ = bert.write(precision)
    weight = bert.model.get_submodule(WORDS).weight.detach().numpy()
    values, scales = quantize(weight, bits)
    _, data = named(path, f"{WORDS}.weight", Type.INT8 if bits == 8 else Type.INT4)
    assert np.array_equal(data, (values if bits == 8 else pack(values)).reshape(-1).view(np.uint8))
    kind = Type.FLOAT32 if bits == 8 else Type.FLOAT16
    _, data = named(path, f"{WORDS}.weight/scales", kind)
    stored = data.view(np.float32 if bits == 8 else np.float16)
    assert np.allclose(stored, scales.reshape(-1), rtol=1e-3)


def test_four_bits_have_a_scale_a_block(bert: Exported) -> None:
    weight = bert.model.get_submodule(POOLER).weight.detach().numpy()
    path, _ = bert.write(Precision.INT4)
    tensor, data = named(path, f"{POOLER}.weight", Type.INT4)
    assert tensor.quantization.details.blockSize == 128
    blocks = weight.reshape(-1, 128)
    expected = np.rint(blocks / (np.abs(blocks).max(axis=1, keepdims=True) / np.float32(7)))
    low, high = (data << 4).view(np.int8) >> 4, data.view(np.int8) >> 4
    assert np.array_equal(np.stack([low, high], axis=1).reshape(-1), expected.reshape(-1))
    assert expected.min() == -7 and expected.max() == 7


@pytest.mark.parametrize(
    ("precision", "wide", "kind"),
    [
        (Precision.INT8, Precision.FP16, Type.FLOAT16),
        (Precision.INT8_WEIGHTS, Precision.FP16, Type.FLOAT16),
        (Precision.INT8_STATIC, Precision.FP16, Type.FLOAT16),
        (Precision.INT8_STATIC, Precision.FP32, Type.FLOAT32),
        (Precision.INT4, Precision.INT8, Type.INT8),
    ],
)
def test_one_module_stays_wider(
    bert: Exported, precision: Precision, wide: Precision, kind: int
) -> None:
    path, _ = bert.write(precision, **{POOLER.replace(".", "__"): wide})
    plain, _ = bert.write(precision)
    assert named(path, f"{POOLER}.weight", kind)
    added = 256 * 256 * (wide.weight_bits - precision.weight_bits) // 8
    assert abs(path.stat().st_size - plain.stat().st_size - added) < 0.05 * added + 2048
    assert bert.error(path, "litert") < 0.8


@pytest.mark.parametrize(
    "precision",
    [
        *(Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT8_WEIGHTS),
        *(Precision.INT8_STATIC, Precision.INT4),
    ],
)
def test_lengths_share_all_weights(bert: Exported, precision: Precision) -> None:
    path, _ = bert.write(precision)
    program = Program(path)
    buffers = [b.data.tobytes() for b in program.model.buffers if b.data is not None]
    assert len(set(buffers)) == len(buffers)
    large = [
        {t.buffer for t in graph.tensors if _size(program, t) > 8192} for graph in program.graphs
    ]
    assert large[0] == large[1]
    assert len(large[0]) > 10


def test_a_tied_decoder_is_stored_once(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    exported = Exported(tmp_path, tiny_checkpoint, "fill-mask")
    for precision, most in ((Precision.INT8, 0.1), (Precision.INT4, 0.8)):
        path, _ = exported.write(precision)
        program = Program(path)
        table, _ = named(path, f"{WORDS}.weight", Type.INT8 if most == 0.1 else Type.INT4)
        users = {
            program.kind(operator)
            for _, operator, _, tensor in program.constants()
            if tensor.buffer == table.buffer
        }
        assert users == {Kind.GATHER, Kind.FULLY_CONNECTED}
        assert exported.error(path, "litert") < most


def test_what_cannot_have_four_bits_is_reported(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_checkpoint(tmp_path / "checkpoint", "squeezebert", num_hidden_layers=1)
    checkpoint = open_checkpoint(str(source))
    view = ExportView(load_model(checkpoint, attention="eager"), checkpoint.task).eval()
    export = TfliteConverter().open(view, Plan(checkpoint.task, NAMES, (16,)), tmp_path)
    with pytest.raises(ConversionError, match="int8-static needs texts like those the app will"):
        export.write(Request(Precision.INT8_STATIC, "litert"), tmp_path / "model.tflite")
    kept = export.write(Request(Precision.INT4, "litert"), tmp_path / "model.tflite")
    assert {k.precision for k in kept} == {"int8"}
    assert all("transformer.encoder" in k.layer for k in kept)
    assert all(k.size_bytes and k.size_bytes >= 512 for k in kept)


def test_a_block_of_zeros_is_zero() -> None:
    weights = np.zeros((2, 256), np.float32)
    weights[1, 128:] = 7
    values, scales = quantize(weights, 4)
    assert np.array_equal(values * np.repeat(scales, 128, axis=1), weights)
    assert np.isfinite(scales).all()
