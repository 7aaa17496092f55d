"""Saved Core ML packages, executed: against PyTorch, damaged, and given wrong inputs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.console import hush
from edge.engines.mil.package import TensorType
from edge.engines.mil.program import MilProgram
from edge.engines.mil.steps import Step
from edge.engines.mil.threads import _controls, blas_threads
from edge.errors import EngineError

WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")


@pytest.fixture(scope="session")
def ct() -> Any:
    with hush():
        return pytest.importorskip("coremltools", reason="coremltools has no wheel here")


@pytest.fixture(scope="session")
def encoder() -> Any:
    """A one-layer encoder of random weights: ids and mask (1, length) to a vector and logits."""
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(100, 32), nn.Embedding(64, 32)
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 3)
            self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
            self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
            length = input_ids.shape[1]
            x = self.norm(self.words(input_ids) + self.places(torch.arange(length))[None])
            q, k, v = (
                part(x).view(1, length, 4, 8).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
            weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5 + mask, dim=-1)
            x = x + (weights @ v).transpose(1, 2).reshape(1, length, 32)
            x = x + self.narrow(nn.functional.gelu(self.wide(x)))
            kept = attention_mask[:, :, None].float()
            pooled = (x * kept).sum(1) / kept.sum(1)
            return {"pooled": pooled, "logits": torch.tanh(self.head(pooled))}

    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture(scope="session")
def models(ct: Any, encoder: Any) -> dict[str, Any]:
    """The encoder converted in both precisions, for lengths 2 to 64."""
    import torch

    pair = {"input_ids": torch.zeros(1, 16), "attention_mask": torch.ones(1, 16)}
    pair = {name: value.to(torch.int32) for name, value in pair.items()}
    length = torch.export.Dim("length", min=2, max=64)
    shapes = {name: {1: length} for name in pair}
    shape = ct.Shape(shape=(1, ct.RangeDim(2, 64, default=16)))
    with hush(), torch.no_grad():
        exported = torch.export.export(encoder, (), pair, dynamic_shapes=shapes)
        exported = exported.run_decompositions({})
        return {
            precision: ct.convert(
                exported,
                inputs=[ct.TensorType(name=n, shape=shape, dtype=np.int32) for n in pair],
                outputs=[ct.TensorType(name=n) for n in ("pooled", "logits")],
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=getattr(ct.precision, precision),
            )
            for precision in ("FLOAT32", "FLOAT16")
        }


@pytest.fixture(scope="session")
def packages(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    return {name: _save(model, folder / f"{name}.mlpackage") for name, model in models.items()}


@pytest.fixture
def damaged(packages: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a good package, for a test to damage."""
    return Path(shutil.copytree(packages["FLOAT32"], tmp_path / "model.mlpackage"))


def _save(model: Any, path: Path) -> Path:
    with hush():
        model.save(str(path))
    return path


def _build(
    ct: Any,
    path: Path,
    body: Callable[..., Any],
    shapes: dict[str, tuple[int, ...]],
    **options: Any,
) -> Path:
    """Save a hand-written program of float32 inputs; its results are named by `body`."""
    from coremltools.converters.mil import Builder as mb

    target = options.pop("target", ct.target.iOS17)
    options.setdefault("compute_precision", ct.precision.FLOAT32)
    specs = [mb.TensorSpec(shape) for shape in shapes.values()]
    with hush():
        program = mb.program(input_specs=specs, opset_version=target)(body)
        model = ct.convert(program, minimum_deployment_target=target, **options)
    return _save(model, path)


def _inputs(length: int, valid: int) -> dict[str, Any]:
    ids = np.random.default_rng(length).integers(0, 100, (1, length)).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < valid).astype(np.int32)[None],
    }


def _expected(encoder: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        outputs = encoder(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def _relative_error(actual: Any, expected: Any) -> float:
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("precision", "limit"), [("FLOAT32", 1e-5), ("FLOAT16", 5e-3)])
@pytest.mark.parametrize(("length", "valid"), [(2, 2), (16, 11), (37, 37), (64, 40)])
def test_encoder_agrees_with_torch(
    packages: dict[str, Path], encoder: Any, precision: str, limit: float, length: int, valid: int
) -> None:
    program = MilProgram.load(packages[precision])
    inputs = _inputs(length, valid)
    outputs = program.run(inputs)
    assert list(outputs) == ["pooled", "logits"]
    for name, expected in _expected(encoder, inputs).items():
        assert _relative_error(outputs[name], expected) < limit


def test_program_describes_itself(packages: dict[str, Path]) -> None:
    program = MilProgram.load(packages["FLOAT16"])
    assert program.inputs == ("input_ids", "attention_mask")
    assert program.outputs == ("pooled", "logits")
    assert program.input_shapes == {"input_ids": (1, None), "attention_mask": (1, None)}
    assert program.input_dtypes == {"input_ids": "int32", "attention_mask": "int32"}
    assert program.output_dtypes == {"pooled": "fp16", "logits": "fp16"}
    assert MilProgram.load(packages["FLOAT32"]).output_dtypes["logits"] == "fp32"
    assert program.operators["linear"] == 6
    assert program.operators["softmax"] == 1


def test_a_run_leaves_the_program_and_its_inputs_as_they_were(packages: dict[str, Path]) -> None:
    program, inputs = MilProgram.load(packages["FLOAT16"]), _inputs(20, 15)
    before = {name: value.copy() for name, value in inputs.items()}
    first = program.run(inputs)
    first["pooled"][:] = 0
    again = program.run({name: value.astype(np.int64) for name, value in inputs.items()})
    np.testing.assert_array_equal(first["logits"], again["logits"])
    assert np.abs(again["pooled"]).max() > 0
    for name, value in before.items():
        np.testing.assert_array_equal(inputs[name], value)


def test_results_typed_fp16_are_rounded_and_overflow(ct: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil import Builder as mb

    def body(x: Any) -> Any:
        return mb.sqrt(x=mb.mul(x=x, y=np.float32(300)), name="y")

    x = np.array([[0.1, 3.0, 1000.0]], np.float32)
    outputs = {}
    for precision in (ct.precision.FLOAT16, ct.precision.FLOAT32):
        path = tmp_path / f"{precision.name}.mlpackage"
        _build(ct, path, body, {"x": (1, 3)}, compute_precision=precision)
        outputs[precision.name] = MilProgram.load(path).run({"x": x})["y"]
    exact = MilProgram.load(tmp_path / "FLOAT16.mlpackage").run({"x": x}, round_fp16=False)["y"]
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        expected = np.sqrt(half * np.float16(300))
    np.testing.assert_array_equal(outputs["FLOAT16"], expected)
    assert np.isinf(outputs["FLOAT16"][0, 2])
    np.testing.assert_allclose(outputs["FLOAT32"], np.sqrt(x * 300), rtol=1e-6)
    np.testing.assert_allclose(exact, np.sqrt(x * 300), rtol=1e-6)


def test_outputs_come_in_their_declared_types(packages: dict[str, Path]) -> None:
    inputs = _inputs(12, 12)
    half, full = (MilProgram.load(packages[name]) for name in ("FLOAT16", "FLOAT32"))
    assert half.run(inputs)["logits"].dtype == np.float16
    assert half.run(inputs, round_fp16=False)["logits"].dtype == np.float32
    assert full.run(inputs)["logits"].dtype == np.float32


def test_compressed_encoder_stays_close_to_torch(
    ct: Any, models: dict[str, Any], encoder: Any, tmp_path: Path
) -> None:
    import coremltools.optimize.coreml as cto

    config = cto.OpLinearQuantizerConfig(weight_threshold=64)
    with hush():
        model = cto.linear_quantize_weights(
            models["FLOAT16"], cto.OptimizationConfig(global_config=config)
        )
    program = MilProgram.load(_save(model, tmp_path / "int8.mlpackage"))
    assert program.operators["constexpr_affine_dequantize"] >= 8
    inputs = _inputs(30, 20)
    outputs = program.run(inputs)
    for name, expected in _expected(encoder, inputs).items():
        assert 1e-4 < _relative_error(outputs[name], expected) < 5e-2


def test_unknown_operator_is_named_when_loading(ct: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil import Builder as mb

    path = _build(
        ct,
        tmp_path / "unknown.mlpackage",
        lambda x: mb.local_response_norm(x=x, size=3, name="odd_one"),
        {"x": (1, 4, 5)},
    )
    with pytest.raises(EngineError) as caught:
        MilProgram.load(path)
    assert str(caught.value) == (
        "unknown.mlpackage: operator 'local_response_norm' ('odd_one') has no implementation here: "
        "run the package with Core ML on a Mac"
    )


def test_unknown_parameter_is_named_when_loading(ct: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil import Builder as mb

    def body(x: Any) -> Any:
        state, weight = np.zeros((1, 2), np.float32), np.ones((8, 2), np.float32)
        steps, _, _ = mb.lstm(
            x=x,
            initial_h=state,
            initial_c=state,
            weight_ih=weight,
            weight_hh=weight,
            peephole=np.ones(6, np.float32),
            name="gates",
        )
        return steps

    path = _build(ct, tmp_path / "peephole.mlpackage", body, {"x": (3, 1, 2)})
    with pytest.raises(
        EngineError, match=r"the parameter 'peephole' of operator 'lstm' \('gates'\)"
    ):
        MilProgram.load(path)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _leave_a_file(package: Path) -> None:
    shutil.rmtree(package)
    package.write_bytes(b"not a folder")


def _point_outside(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../../elsewhere"
    (package / "Manifest.json").write_text(json.dumps(manifest))


def _spoil_blob(package: Path) -> None:
    contents = bytearray((package / WEIGHTS).read_bytes())
    contents[64:68] = b"\0\0\0\0"
    (package / WEIGHTS).write_bytes(bytes(contents))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: shutil.rmtree(p), "is not a Core ML package: it has no Manifest.json"),
        (lambda p: (p / "Manifest.json").unlink(), "it has no Manifest.json"),
        (_leave_a_file, "it has no Manifest.json"),
        (lambda p: (p / "Manifest.json").write_text("{"), "Manifest.json names no model"),
        (lambda p: (p / "Manifest.json").write_text("[]"), "Manifest.json names no model"),
        (_point_outside, "Manifest.json names a model outside the package"),
        (lambda p: (p / MODEL).unlink(), "'com.apple.CoreML/model.mlmodel' is missing"),
        (lambda p: (p / MODEL).write_bytes(b"\x89PNG" * 99), "is not a Core ML model description"),
        (lambda p: (p / MODEL).write_bytes(b""), "'model.mlmodel' holds no model"),
        (lambda p: _cut(p / MODEL, 5000), "is not a Core ML model description"),
        (lambda p: (p / WEIGHTS).unlink(), "the weight file 'weight.bin' cannot be read"),
        (lambda p: _cut(p / WEIGHTS, 70), "'weight.bin' ends after 70 bytes where 88 are needed"),
        (lambda p: _cut(p / WEIGHTS, 9000), "'weight.bin' ends after 9000 bytes where"),
        (_spoil_blob, "'weight.bin' holds no fp32 values at byte 64"),
    ],
)
def test_damaged_package_is_refused_in_one_line(
    damaged: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(damaged)
    with pytest.raises(EngineError) as caught:
        MilProgram.load(damaged)
    assert message in str(caught.value)
    assert "model.mlpackage" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_a_program_is_refused(ct: Any, damaged: Path) -> None:
    model = ct.proto.Model_pb2.Model()
    model.neuralNetwork.SetInParent()
    (damaged / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="holds a neuralNetwork, not an ML program: convert for"):
        MilProgram.load(damaged)


def test_every_cut_of_the_files_is_refused_or_harmless(damaged: Path) -> None:
    """No cut may end in anything but an EngineError; cutting weights is never harmless."""
    for name in (MODEL, WEIGHTS):
        whole = (damaged / name).read_bytes()
        for part in range(20):
            (damaged / name).write_bytes(whole[: len(whole) * part // 20])
            with pytest.raises(EngineError):
                MilProgram.load(damaged)
        (damaged / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"attention_mask": None},
            "input 'attention_mask' is missing: the program takes input_ids",
        ),
        ({"token_type_ids": np.zeros((1, 9), np.int32)}, "input 'token_type_ids' is unknown"),
        ({"input_ids": np.zeros((1, 65), np.int32)}, r"has shape \(1, 65\).*accepts \(1, 2..64\)"),
        ({"input_ids": np.zeros((1, 1), np.int32)}, r"has shape \(1, 1\).*accepts \(1, 2..64\)"),
        ({"input_ids": np.zeros((2, 9), np.int32)}, r"has shape \(2, 9\)"),
        ({"input_ids": np.zeros(9, np.int32)}, r"has shape \(9\)"),
        ({"input_ids": np.zeros((1, 9), np.float32)}, "is float32; the program takes int32"),
        ({"input_ids": np.full((1, 9), "a")}, "is <U1; the program takes int32"),
        (
            {"input_ids": np.full((1, 9), 100)},
            r"operator 'gather' \('.*'\) failed: index 100 is out",
        ),
        (
            {"attention_mask": np.ones((1, 8), np.int32)},
            r"operator 'add' \('.*'\) failed: operands",
        ),
    ],
)
def test_wrong_inputs_are_refused(
    packages: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    given = {**_inputs(9, 9), **change}
    program = MilProgram.load(packages["FLOAT32"])
    with pytest.raises(EngineError, match=message):
        program.run({name: value for name, value in given.items() if value is not None})


def test_a_shape_that_contradicts_the_program_is_refused(packages: dict[str, Path]) -> None:
    declared = next(iter(MilProgram.load(packages["FLOAT32"])._outputs.values()))
    step = Step(
        "tile", "t", lambda x: x, {"x": "x"}, (("y", TensorType(declared.element, (2, 3))),)
    )
    with pytest.raises(EngineError, match=r"operator 'tile' \('t'\) gave shape \(2, 4\), where"):
        step.run({"x": np.zeros((2, 4), np.float32)}, round_fp16=True)


@pytest.mark.skipif(
    sys.platform != "linux", reason="numpy's own OpenBLAS is that of its Linux wheels"
)
def test_matrix_products_use_the_threads_asked_for() -> None:
    controls = _controls()
    assert controls is not None
    get, put = controls
    before = get()
    try:
        put(2)
        with pytest.raises(KeyboardInterrupt), blas_threads(1):
            assert get() == 1
            raise KeyboardInterrupt
        assert get() == 2
    finally:
        put(before)


def test_loading_and_running_import_neither_coremltools_nor_torch(
    packages: dict[str, Path],
) -> None:
    script = (
        "import sys, numpy\nfrom pathlib import Path\n"
        "from edge.engines.mil.program import MilProgram\n"
        "program = MilProgram.load(Path(sys.argv[1]))\n"
        "ones = numpy.ones((1, 8), numpy.int32)\n"
        "assert program.run({n: ones for n in program.inputs})['logits'].shape == (1, 3)\n"
        "print(sorted({'coremltools', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(packages["FLOAT16"])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
