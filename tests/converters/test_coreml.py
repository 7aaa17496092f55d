"""Core ML packages, read back and executed: targets, numbers, shapes, and automatic widths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.base import Plan, Request
from converters.coreml import CoremlConverter, CoremlExport
from converters.coreml.quantize import int4, int8, palette
from edge.checkpoint import load_model, open_checkpoint
from edge.console import hush
from edge.engines.mil.loader import load_program
from edge.engines.mil.package import read_model
from edge.engines.mil.program import MilProgram
from edge.errors import ConversionError, EngineError
from edge.formats import FORMATS
from edge.inspection.coreml import read
from edge.precision import Precision

TARGETS = [target.name for target in FORMATS["coreml"].targets]
VERSIONS = {"ios15": 6, "ios16": 7, "ios17": 8, "ios18": 9}
LENGTHS = (8, 16)
# Blocks of 128 inputs need as many; biases and norms stay below what is narrowed.
WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
QUERY = "bert.encoder.layer.0.attention.self.query"
WORDS = "bert.embeddings.word_embeddings"

Opener = Callable[..., tuple[Any, CoremlExport]]


@pytest.fixture(scope="module")
def opened(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Opener:
    """`opened(...)`: a model and its export; `change` may alter the model first."""

    def made(
        *,
        architecture: str = "bert",
        task: str = "text-classification",
        change: Callable[[Any], None] | None = None,
        flexible: bool = True,
        lengths: tuple[int, ...] = LENGTHS,
        **changes: Any,
    ) -> tuple[Any, CoremlExport]:
        from converters.graph import ExportView

        folder = tmp_path_factory.mktemp("coreml")
        checkpoint = open_checkpoint(
            tiny_checkpoint(folder / "checkpoint", architecture, task=task, **changes)
        )
        with hush():
            model = load_model(checkpoint, attention="eager")
            if change is not None:
                change(model)
            view = ExportView(model, checkpoint.task).eval()
            plan = Plan(checkpoint.task, ("input_ids", "attention_mask"), lengths, flexible)
            scratch = folder / "scratch"
            scratch.mkdir()
            return view, CoremlConverter().open(view, plan, scratch)

    return made


@pytest.fixture(scope="module")
def bert(opened: Opener) -> tuple[Any, CoremlExport]:
    """A BERT of one layer, 128 wide, and its export; every target's packages are made once."""
    return opened(change=_calm, **WIDE)


def _calm(model: Any) -> None:
    """A spread of weights that 16 bits are enough for, as trained models have."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 0.25
    # The padding's row is all zeros, which has no scale.
    model.get_input_embeddings().weight.data[0, :2] = 0.1


def _write(
    export: CoremlExport, path: Path, precision: Precision, target: str = "ios17", **wider: Any
) -> Any:
    with hush():
        return export.write(Request(precision, target, **wider), path)


def _inputs(length: int, valid: int) -> dict[str, Any]:
    ids = np.random.default_rng(length).integers(5, 80, (1, length)).astype(np.int32)
    return {"input_ids": ids, "attention_mask": (np.arange(length) < valid).astype(np.int32)[None]}


def _error(view: Any, program: MilProgram, length: int = 16, valid: int = 11) -> float:
    """The largest difference from PyTorch, relative to its largest value."""
    import torch

    inputs = _inputs(length, valid)
    with torch.no_grad():
        expected = view(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    found = program.run(inputs)
    assert found.keys() == expected.keys()
    errors = []
    for name, value in expected.items():
        assert np.isfinite(found[name]).all()
        assert found[name].dtype == np.float32
        errors.append(np.abs(found[name] - value.numpy()).max() / value.abs().max().item())
    return float(max(errors))


def _parts(path: Path) -> dict[str, str]:
    """The operator that gives each constant weight of a package, by the constant's name."""
    model, _ = read_model(path)
    (function,) = model.mlProgram.functions.values()
    operations = function.block_specializations[function.opset].operations
    kinds = {operation.outputs[0].name: operation.type for operation in operations}
    return {name: kind for name, kind in kinds.items() if kind.startswith("const")}


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_every_precision_of_every_target_runs_as_its_version(
    bert: tuple[Any, CoremlExport], tmp_path: Path, target: str
) -> None:
    view, export = bert
    sizes = {}
    for precision in FORMATS["coreml"].target(target).precisions:
        path = tmp_path / f"{precision.value}.mlpackage"
        assert _write(export, path, precision, target) == ()
        model, _ = read_model(path)
        assert model.specificationVersion == VERSIONS[target]
        (function,) = model.mlProgram.functions.values()
        assert function.opset == f"CoreML{VERSIONS[target] - 1}"
        program = MilProgram.load(path)
        for length, valid in ((4, 4), (13, 9), (16, 16)):
            limit = precision.gate.max_relative_error
            # Random weights have no structure that 2 bits could keep.
            limit = 2.0 if precision is Precision.PALETTE2 else limit
            assert _error(view, program, length, valid) < limit, precision
        sizes[precision] = _size(path)
    assert sizes[Precision.FP16] == sizes[Precision.AUTO] < 0.6 * sizes[Precision.FP32]


def test_coremltools_reads_narrow_weights_as_the_interpreter_does(
    bert: tuple[Any, CoremlExport], tmp_path: Path
) -> None:
    for target in ("ios16", "ios18"):
        for precision in (Precision.INT8, Precision.INT4, Precision.PALETTE6, Precision.PALETTE2):
            if precision not in FORMATS["coreml"].target(target).precisions:
                continue
            path = tmp_path / f"{precision.value}-{target}.mlpackage"
            _write(bert[1], path, precision, target)
            with hush():
                import coremltools as ct
                from coremltools.converters.mil.frontend.milproto.load import load

                model = ct.models.MLModel(str(path), skip_model_load=True)
                theirs = load(model.get_spec(), VERSIONS[target], model.weights_dir)
            ours = load_program(path).constants
            narrow = [
                operation
                for operation in theirs.functions["main"].operations
                if operation.op_type.startswith("constexpr_")
            ]
            # Two tables of embeddings, four projections, two of the feed-forward, and the pooler.
            assert len(narrow) == 9
            for operation in narrow:
                wanted = np.asarray(operation.materialized_val_inference(), np.float32)
                name = operation.outputs[0].name
                np.testing.assert_allclose(ours[name], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("target", ["ios17", "ios18"])
def test_int8_has_one_scale_a_row(
    bert: tuple[Any, CoremlExport], tmp_path: Path, target: str
) -> None:
    path = tmp_path / "int8.mlpackage"
    _write(bert[1], path, Precision.INT8, target)
    constants = load_program(path).constants
    for module in (QUERY, WORDS):
        weights = bert[0].model.get_submodule(module).weight.detach().numpy()
        scales = np.abs(weights).max(axis=1, keepdims=True) / 127
        expected = np.round(weights / scales) * scales.astype(np.float16).astype(np.float32)
        assert np.abs(np.round(weights / scales)).max() == 127
        np.testing.assert_allclose(_weight(constants, weights), expected, rtol=1e-3, atol=1e-6)


def test_int4_has_one_scale_a_block_of_inputs(
    bert: tuple[Any, CoremlExport], tmp_path: Path
) -> None:
    view, export = bert
    path = tmp_path / "int4.mlpackage"
    _write(export, path, Precision.INT4, "ios18")
    constants = load_program(path).constants
    for module, inputs in ((WORDS, 128), ("bert.encoder.layer.0.output.dense", 256)):
        weights = view.model.get_submodule(module).weight.detach().numpy()
        assert weights.shape[1] == inputs
        blocks = weights.reshape(len(weights), inputs // 128, 128)
        scales = np.abs(blocks).max(axis=2, keepdims=True) / 7
        expected = np.round(blocks / scales) * scales.astype(np.float16).astype(np.float32)
        found = _weight(constants, weights)
        np.testing.assert_allclose(found, expected.reshape(weights.shape), rtol=1e-3, atol=1e-6)


def _weight(constants: dict[str, Any], weights: Any) -> Any:
    """The constant that is nearest to some weights."""
    same = [
        value
        for value in constants.values()
        if isinstance(value, np.ndarray) and value.shape == weights.shape
    ]
    return min(same, key=lambda value: float(np.abs(value - weights).max()))


def test_scales_too_small_for_16_bits_still_give_the_nearest_weights() -> None:
    weights = np.array([[1e-5, -5e-6, 3e-6], [0, 0, 0], [1, 0.5, -0.25]], np.float32)
    found = int8(weights, 0)
    rebuilt = found.values * found.scales.astype(np.float32)
    assert np.isfinite(found.scales).all()
    np.testing.assert_allclose(rebuilt[0], weights[0], atol=float(found.scales[0, 0]))
    np.testing.assert_array_equal(rebuilt[1], 0)
    np.testing.assert_allclose(rebuilt[2], weights[2], atol=0.5 / 127)


def test_blocks_follow_the_inputs_of_a_weight() -> None:
    weights = np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32)
    assert int4(weights, 1).scales.shape == (2, 3)
    assert int4(weights.T, 0).scales.shape == (3, 2)
    assert int4(weights.T[:, :200], 0).scales.shape == (3, 1)
    assert int4(weights.reshape(1, 256, 3), 2).scales.shape == (1, 2, 3)
    assert int4(weights.T.reshape(3, 256, 1), 0).scales.shape == (3, 2, 1)


def test_palettes_are_the_k_means_of_a_tensor() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((300, 200)).astype(np.float32)
    for bits, best in ((2, 0.11751), (4, 0.009501)):
        found = palette(weights, bits)
        assert found.table.shape == (1 << bits,)
        error = np.square(weights - found.table[found.indices].astype(np.float32)).mean()
        # What the best quantizer loses on a normal distribution: Max 1960, "Quantizing for
        # minimum distortion", table I.
        assert error < 1.03 * best
    few = np.array([[1, -2], [0.5, 1]], np.float32)
    found = palette(few, 4)
    np.testing.assert_array_equal(found.table[found.indices], few)


def test_palettes_have_as_many_values_as_their_bits(
    bert: tuple[Any, CoremlExport], tmp_path: Path
) -> None:
    words = bert[0].model.get_submodule(WORDS).weight.detach().numpy()
    for target in ("ios16", "ios18"):
        for bits in (8, 6, 4, 2):
            path = tmp_path / f"{bits}-{target}.mlpackage"
            _write(bert[1], path, Precision(f"palette{bits}"), target)
            table = _weight(load_program(path).constants, words)
            assert 0.9 * (1 << bits) <= np.unique(table).size <= 1 << bits


def test_weights_that_an_older_system_takes_in_32_bits_are_narrowed_too(
    opened: Opener, tmp_path: Path
) -> None:
    """Before iOS 17 a recurrent layer is one in 32 bits."""
    view, export = opened(architecture="bilstm")
    path = tmp_path / "model.mlpackage"
    kept = _write(export, path, Precision.FP16, "ios16")
    assert kept and all("lstm" in entry.layer for entry in kept)
    for precision in (Precision.INT8, Precision.PALETTE8):
        _write(export, path, precision, "ios16")
        assert not any(_wide(path))
        assert _error(view, MilProgram.load(path)) < 0.1


def _wide(path: Path) -> list[Any]:
    return [t for t in read(path).tensors if t.dtype == "float32" and t.elements >= 1024]


def test_inspection_shows_narrow_weights(bert: tuple[Any, CoremlExport], tmp_path: Path) -> None:
    words = bert[0].model.get_submodule(WORDS).weight
    for target, precision, dtype, bits in (
        ("ios16", Precision.PALETTE6, "uint8", 6),
        ("ios18", Precision.PALETTE6, "uint6", 6),
        ("ios18", Precision.INT4, "int4", 4),
    ):
        path = tmp_path / f"{precision.value}-{target}.mlpackage"
        _write(bert[1], path, precision, target)
        narrow = [t for t in read(path).tensors if t.role == "weight" and t.dtype == dtype]
        assert len(narrow) == 9
        largest = max(narrow, key=lambda tensor: tensor.elements)
        assert largest.elements >= words.numel()
        assert largest.size_bytes == largest.elements * bits // 8


def test_layers_asked_to_be_wider_are(bert: tuple[Any, CoremlExport], tmp_path: Path) -> None:
    view, export = bert
    path = tmp_path / "model.mlpackage"
    query = view.model.get_submodule(QUERY).weight.detach().numpy()
    words = view.model.get_submodule(WORDS).weight.detach().numpy()
    wider = {QUERY: Precision.FP16, WORDS: Precision.INT8}
    for precision, target in ((Precision.INT4, "ios18"), (Precision.PALETTE2, "ios17")):
        _write(export, path, precision, target)
        narrow = _size(path)
        _write(export, path, precision, target, wider=wider)
        constants = load_program(path).constants
        np.testing.assert_allclose(_weight(constants, query), query, rtol=1e-3, atol=1e-6)
        steps = np.abs(_weight(constants, words) - words) / np.abs(words).max(1, keepdims=True)
        assert 0.3 / 127 < steps.max() < 0.6 / 127
        assert _size(path) > narrow + query.size
        assert sum(kind.startswith("constexpr") for kind in _parts(path).values()) == 8


def test_a_constant_can_be_named_instead_of_its_layer(
    bert: tuple[Any, CoremlExport], tmp_path: Path
) -> None:
    path = tmp_path / "int8.mlpackage"
    _write(bert[1], path, Precision.INT8)
    name = next(name for name, kind in _parts(path).items() if kind.startswith("constexpr"))
    _write(bert[1], path, Precision.INT8, wider={name: Precision.FP16})
    assert _parts(path)[name] == "const"


def test_a_tied_embedding_is_stored_once(opened: Opener, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.resize_token_embeddings(4000)

    view, export = opened(task="fill-mask", change=change, **WIDE)
    table = view.model.get_input_embeddings().weight
    assert table is view.model.get_output_embeddings().weight
    path = tmp_path / "model.mlpackage"
    total = sum(parameter.numel() for parameter in view.model.parameters())
    assert 2 * table.numel() > total
    for precision in (Precision.FP16, Precision.INT8, Precision.PALETTE4):
        _write(export, path, precision)
        stored = (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
        assert stored < 1.1 * total * precision.weight_bits / 8


def test_enumerated_lengths_are_the_only_ones(opened: Opener, tmp_path: Path) -> None:
    view, export = opened(flexible=False, lengths=(8, 12, 16))
    path = tmp_path / "model.mlpackage"
    for precision in (Precision.FP16, Precision.INT4):
        _write(export, path, precision, "ios18")
        model, _ = read_model(path)
        for entry in model.description.input:
            array = entry.type.multiArrayType
            choices = [tuple(choice.shape) for choice in array.enumeratedShapes.shapes]
            assert sorted(choices) == [(1, 8), (1, 12), (1, 16)]
            assert tuple(array.shape) == (1, 16)
        assert [spec.shape for spec in read(path).signatures[0].inputs] == [(1, "8|12|16")] * 2
        program = MilProgram.load(path)
        for length in (8, 12, 16):
            assert _error(view, program, length, 7) < 2 * precision.gate.max_relative_error
        with pytest.raises(EngineError, match=r"has shape \(1, 10\); the program accepts \(1, "):
            program.run(_inputs(10, 10))


@pytest.mark.parametrize(("flexible", "lengths"), [(True, (4,)), (False, (16,))])
def test_a_single_length(
    opened: Opener, tmp_path: Path, flexible: bool, lengths: tuple[int, ...]
) -> None:
    view, export = opened(flexible=flexible, lengths=lengths, num_hidden_layers=1)
    path = tmp_path / "model.mlpackage"
    _write(export, path, Precision.FP16, "ios18")
    assert _error(view, MilProgram.load(path), lengths[0], 3) < 1e-2


def test_weights_go_to_zero_or_wide_where_16_bits_end(opened: Opener, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        weight = model.get_submodule(QUERY).weight.data
        weight[0, 0], weight[1, 1] = 1e-30, 3e-7
        # Beyond 65504, and brought back by what follows.
        pooler = model.bert.pooler.dense
        pooler.weight.data[0, 0] = 70000.0

    view, export = opened(change=change)
    path = tmp_path / "model.mlpackage"
    (kept,) = _write(export, path, Precision.FP16)
    assert (kept.precision, kept.size_bytes) == ("fp32", 2 * 32 * 32)
    assert _error(view, MilProgram.load(path)) < 1e-2


def _overflow(model: Any) -> None:
    """Values in the hundred thousands before a layer norm that brings them back."""
    layer = model.bert.encoder.layer[0].output.dense
    layer.weight.data *= 1e5
    layer.bias.data *= 1e5


def test_auto_keeps_what_leaves_the_range_in_32_bits(opened: Opener, tmp_path: Path) -> None:
    view, export = opened(change=_overflow)
    path = tmp_path / "model.mlpackage"
    _write(export, path, Precision.FP16)
    inputs = _inputs(16, 11)
    assert not np.isfinite(MilProgram.load(path).run(inputs)["logits"]).all()
    kept = _write(export, path, Precision.AUTO)
    program = MilProgram.load(path)
    assert _error(view, program) < 1e-2
    assert 1 <= len(kept) <= 6
    assert {entry.precision for entry in kept} == {"fp32"}
    # The weights of the one product that overflows, in 32 instead of 16 bits.
    expected = 2 * view.model.bert.encoder.layer[0].output.dense.weight.numel()
    assert expected <= sum(entry.size_bytes or 0 for entry in kept) < 1.5 * expected


def test_what_is_written_again_does_not_change_what_was_written_before(
    bert: tuple[Any, CoremlExport], tmp_path: Path
) -> None:
    path = tmp_path / "fp16.mlpackage"
    _write(bert[1], path, Precision.FP16)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for precision in (Precision.INT8, Precision.FP16, Precision.FP32):
        _write(bert[1], tmp_path / "other.mlpackage", precision)
    assert {file: file.read_bytes() for file in before} == before


def test_auto_does_not_look_at_padding(opened: Opener, tmp_path: Path) -> None:
    """Where every key in a local window is padding, 16 bits lose all: nobody reads those rows."""
    _, export = opened(architecture="modernbert", task="token-classification")
    assert _write(export, tmp_path / "model.mlpackage", Precision.AUTO) == ()


def test_auto_widens_what_loses_too_much(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing leaves the range here, but the gate is set below what 16 bits give."""
    view, export = opened()
    path = tmp_path / "model.mlpackage"
    _write(export, path, Precision.FP16)
    error = _error(view, MilProgram.load(path))
    monkeypatch.setattr("converters.coreml.mixed._GATE", error / 4)
    monkeypatch.setattr("converters.coreml.mixed._LIMITS", (error / 8,))
    kept = _write(export, path, Precision.AUTO)
    program = MilProgram.load(path)
    assert _error(view, program) < error / 2
    assert 1 <= len(kept) < program.operators.total() - program.operators["const"]


def test_auto_that_cannot_pass_is_refused(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, export = opened(change=_overflow)
    path = tmp_path / "model.mlpackage"
    monkeypatch.setattr("converters.coreml.mixed._GATE", 0.0)
    monkeypatch.setattr("converters.coreml.mixed._LIMITS", (1e-2,))
    with pytest.raises(ConversionError, match="no choice of 16-bit operators .* --precision fp32"):
        _write(export, path, Precision.AUTO)
    assert not path.exists()


def test_an_operator_core_ml_lacks_is_named_with_its_layer(opened: Opener) -> None:
    import torch
    from torch import nn

    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x)

    def change(model: Any) -> None:
        model.bert.encoder.layer[0].intermediate.intermediate_act_fn = Odd()

    expected = (
        r"Core ML has no operator aten\.special_bessel_j0, used in layer "
        r"bert\.encoder\.layer\.0\.intermediate\.intermediate_act_fn \(Odd\)"
    )
    with pytest.raises(ConversionError, match=expected):
        opened(change=change)
