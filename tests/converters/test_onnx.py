"""ONNX artifacts: the integers in them, each weight once, every target, and clean refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConvertConfig, convert
from converters.base import Plan, Request
from converters.onnx import OnnxConverter, OnnxExport
from edge.bundle import Artifact
from edge.checkpoint import load_model, open_checkpoint
from edge.engines.onnx_reference import OnnxReference
from edge.engines.onnxruntime import OnnxRuntime
from edge.errors import ConversionError, EngineError
from edge.precision import Precision

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORDS = "bert.embeddings.word_embeddings"
# The second layer's intermediate matrix is (64, 32): large enough to be narrowed.
MATRIX = "bert.encoder.layer.1.intermediate.dense"


def _open(checkpoint: Path, *, task: str | None = None, model: Any = None) -> OnnxExport:
    from converters.graph import ExportView

    found = open_checkpoint(str(checkpoint), task=task)
    loaded = model or load_model(found, attention="eager")
    plan = Plan(task=found.task, inputs=INPUTS, lengths=(16, 32), calibration=_samples())
    return OnnxConverter().open(ExportView(loaded, found.task).eval(), plan, checkpoint)


def _samples(count: int = 6) -> tuple[dict[str, Any], ...]:
    random = np.random.default_rng(0)
    lengths = (5 + index for index in range(count))
    return tuple(
        {
            "input_ids": random.integers(5, 50, (1, length)).astype(np.int32),
            "attention_mask": np.ones((1, length), dtype=np.int32),
            "token_type_ids": np.zeros((1, length), dtype=np.int32),
        }
        for length in lengths
    )


@pytest.fixture(scope="module")
def export(bert_checkpoint: Path) -> OnnxExport:
    return _open(bert_checkpoint)


@pytest.fixture(scope="module")
def weights(bert_checkpoint: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(bert_checkpoint / "model.safetensors")


def _write(
    export: OnnxExport, folder: Path, precision: str, target: str = "onnxruntime", **wider: str
) -> Path:
    path = folder / f"{target}-{precision}.onnx"
    chosen = {name.replace("__", "."): Precision(value) for name, value in wider.items()}
    assert export.write(Request(Precision(precision), target, chosen), path) == ()
    return path


def _stored(path: Path) -> list[Any]:
    import onnx
    from onnx import numpy_helper

    return [numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer]


def _operators(path: Path) -> set[str]:
    import onnx

    return {f"{n.domain}:{n.op_type}".strip(":") for n in onnx.load(str(path)).graph.node}


def _has(path: Path, values: Any) -> bool:
    return any(a.dtype == values.dtype and np.array_equal(a, values) for a in _stored(path))


@pytest.mark.parametrize("target", ["onnxruntime", "avx2", "portable"])
def test_every_target_passes_in_its_engines(
    bert_checkpoint: Path, tmp_path: Path, target: str
) -> None:
    from edge.formats import FORMATS

    precisions = [p.value for p in FORMATS["onnx"].target(target).precisions]
    texts = ("a good film", "the plot was bad", "who is not great, and of the film 12?") * 4
    (tmp_path / "texts.tsv").write_text("text\n" + "\n".join(texts) + "\n")
    artifacts = _artifacts(bert_checkpoint, tmp_path, target, precisions)
    assert [artifact.precision for artifact in artifacts] == precisions
    expected = {"onnxruntime", "onnx-reference"} if target == "portable" else {"onnxruntime"}
    for artifact in artifacts:
        assert {v.engine for v in artifact.verifications} == expected
        reasons = [v.reason for v in artifact.verifications if v.status != "passed"]
        assert reasons == [], artifact.name


def _artifacts(
    checkpoint: Path, folder: Path, target: str, precisions: list[str]
) -> tuple[Artifact, ...]:
    values = {
        "source": str(checkpoint),
        "output": folder / "bundle",
        "format": ["onnx"],
        "target": [target],
        "precision": precisions,
        "seq_length": [32],
        "calibration": str(folder / "texts.tsv"),
    }
    return convert(ConvertConfig.build(values)).artifacts


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-weights", "int8-static"])
def test_portable_artifacts_hold_standard_operators_only(
    export: OnnxExport, tmp_path: Path, precision: str
) -> None:
    path = _write(export, tmp_path, precision, "portable")
    assert not [name for name in _operators(path) if ":" in name]


def test_an_operator_of_one_runtime_is_not_portable(
    export: OnnxExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_portable", export._fused)
    with pytest.raises(ConversionError, match=r"com\.microsoft\.\w+.* not standard operators"):
        _write(export, tmp_path, "fp32", "portable")


def test_int8_has_a_scale_per_row_and_channel(
    export: OnnxExport, weights: dict[str, Any], tmp_path: Path
) -> None:
    table, matrix = weights[f"{WORDS}.weight"], weights[f"{MATRIX}.weight"]
    for target, limit in (("onnxruntime", 127), ("avx2", 64), ("portable", 127)):
        path = _write(export, tmp_path, "int8", target)
        for rows, turned in ((table, False), (matrix, True)):
            scales, expected = _quantised(rows, limit)
            assert _has(path, expected.T if turned else expected)
            assert any(a.shape == scales.shape and np.allclose(a, scales) for a in _stored(path))


def _quantised(rows: Any, limit: int) -> tuple[Any, Any]:
    """Scales and integers of rows; the row of the padding token is all zeros."""
    largest = np.abs(rows).max(axis=1)
    scales = np.where(largest == 0, 1, largest / limit).astype(np.float32)
    return scales, np.rint(rows / scales[:, None]).astype(np.int8)


@pytest.mark.parametrize("target", ["onnxruntime", "avx2", "portable"])
def test_an_int8_embedding_is_the_same_alone_padded_and_in_a_batch(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    """Each token has a scale of its own, so no other token can change its integers."""
    source = tiny_checkpoint(tmp_path / "checkpoint", "bert", task="feature-extraction")
    path = _write(_open(source, task="feature-extraction"), tmp_path, "int8", target)
    texts = [sample["input_ids"][0] for sample in _samples()]
    with OnnxRuntime().open(path) as session:
        together = session.run(_padded(texts, 32))["sentence_embedding"]
        for text, batched in zip(texts, together, strict=True):
            for length in (len(text), 32):
                alone = session.run(_padded([text], length))["sentence_embedding"][0]
                np.testing.assert_allclose(alone, batched, atol=2e-6)


def _padded(texts: list[Any], length: int) -> dict[str, Any]:
    inputs = {name: np.zeros((len(texts), length), dtype=np.int32) for name in INPUTS}
    for row, text in enumerate(texts):
        inputs["input_ids"][row, : len(text)] = text
        inputs["attention_mask"][row, : len(text)] = 1
    return inputs


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("limit", [None, 64])
def test_tokens_of_every_range_keep_their_resolution(fused: bool, limit: int | None) -> None:
    random = np.random.default_rng(0)
    value = random.normal(size=(2, 4, 40)).astype(np.float32)
    value[0, 0, 3] = 300  # a token that would take the resolution of all others
    value[0, 1] = 0
    value[1, 0] = np.abs(value[1, 0]) + 5
    value[1, 1] = -np.abs(value[1, 1]) - 5
    value[1, 2] *= 1e-6
    # All of one sign, so that what zero points add to the product is largest.
    matrix = np.abs(random.normal(size=(40, 30))).astype(np.float32)
    found = _tokenwise_product(value, matrix, fused, limit)
    expected = value @ matrix
    ranges = np.maximum(value.max(-1), 0) - np.minimum(value.min(-1), 0)
    rounding = ranges / 255 / 2 * np.abs(matrix).sum(0).max()
    rounding += np.abs(value).sum(-1) * matrix.max() / (limit or 127) / 2
    assert (np.abs(found - expected) <= 1.01 * rounding[..., None]).all()


def _tokenwise_product(value: Any, matrix: Any, fused: bool, limit: int | None) -> Any:
    """A product of `value` (..., inputs) and int8 weights, computed by ONNX Runtime."""
    import onnx_ir as ir
    import onnxruntime

    from converters.onnx.constants import Weight
    from converters.onnx.edits import clean, constant
    from converters.onnx.narrow import Narrowing

    given = ir.val("given", ir.DataType.FLOAT, value.shape)
    graph = ir.Graph([given], [], nodes=[], opset_imports={"": 18, "com.microsoft": 1})
    factor = constant(graph, "matrix", matrix)
    product = ir.node("MatMul", [given, factor])
    graph.append(product)
    output = product.outputs[0]
    output.name, output.shape = "product", ir.Shape((*value.shape[:-1], matrix.shape[1]))
    output.type = ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(output)
    weight = Weight(factor, None, by_rows=False, matmuls=[product])
    Narrowing(graph, fused=fused, limit=limit, tokenwise=True).apply(weight, Precision.INT8)
    model = ir.Model(graph, ir_version=10)
    clean(model)
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"given": value})[0]


def test_zero_point_rows_add_up_to_minus_the_factor() -> None:
    from converters.onnx.tokens import zero_point_rows

    random = np.random.default_rng(0)
    signs = random.integers(-64, 65, (300, 9))
    for factor in (signs, np.full((40, 3), -64), np.zeros((4, 2))):
        for limit, largest in ((None, 127), (64, 64)):
            rows = zero_point_rows(factor.astype(np.int8), limit)
            assert rows.dtype == np.int8
            assert (rows.sum(axis=0, dtype=np.int64) == -factor.sum(axis=0)).all()
            # More would overflow on x86 without VNNI.
            assert np.abs(rows).max() <= largest


def test_int4_puts_two_weights_into_a_byte(
    export: OnnxExport, weights: dict[str, Any], tmp_path: Path
) -> None:
    path = _write(export, tmp_path, "int4")
    for name in (WORDS, MATRIX):
        values = _quantised(weights[f"{name}.weight"], 7)[1] + 8
        assert _has(path, (values[:, ::2] + 16 * values[:, 1::2]).astype(np.uint8))
    assert "com.microsoft:MatMulNBits" in _operators(path)


@pytest.mark.parametrize("hidden", [128, 36])
def test_int4_has_a_scale_per_block(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, hidden: int
) -> None:
    """128 inputs make a block of their own; 36 fill none, nor do 72."""
    from edge.quantization import quantize

    size = {"hidden_size": hidden, "intermediate_size": 2 * hidden}
    source = tiny_checkpoint(tmp_path / "checkpoint", "bert", **size)
    path = _write(_open(source), tmp_path, "int4")
    assert ("com.microsoft:GatherBlockQuantized" in _operators(path)) == (hidden == 128)
    model = load_model(open_checkpoint(str(source)), attention="eager")
    for parameter in model.parameters():
        if parameter.dim() == 2 and parameter.numel() >= 1024:
            values, scales = quantize(parameter.detach().numpy(), 4)
            blocks = values.reshape(*scales.shape, -1) * scales[:, :, None]
            parameter.data.copy_(parameter.data.new_tensor(blocks.reshape(values.shape)))
    expected = _run(_write(_open(source, model=model), tmp_path, "fp32"))["logits"]
    # What is left is the rounding of activations in products.
    assert np.abs(_run(path)["logits"] - expected).max() < 0.03 * np.abs(expected).max()


def test_wider_modules_keep_their_width(
    export: OnnxExport, weights: dict[str, Any], tmp_path: Path
) -> None:
    table, matrix = weights[f"{WORDS}.weight"], weights[f"{MATRIX}.weight"]
    wider = {WORDS.replace(".", "__"): "fp16", MATRIX.replace(".", "__"): "int8"}
    path = _write(export, tmp_path, "int4", **wider)
    assert _has(path, table.astype(np.float16))
    assert _has(path, _quantised(matrix, 127)[1].T)
    narrow = _write(export, tmp_path, "int8", **{WORDS.replace(".", "__"): "fp32"})
    assert _has(narrow, table)
    assert not _has(narrow, matrix.T)


@pytest.mark.parametrize("architecture", ["bert", "albert"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_shared_weights_are_stored_once(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, architecture: str, precision: str
) -> None:
    source = tiny_checkpoint(tmp_path / "checkpoint", architecture, task="fill-mask")
    path = _write(_open(source, task="fill-mask"), tmp_path, precision)
    large = [a for a in _stored(path) if a.size >= 512 and a.dtype != np.float16]
    for index, first in enumerate(large):
        for second in large[index + 1 :]:
            if first.dtype != second.dtype:
                continue
            assert not np.array_equal(first, second)
            assert not np.array_equal(first, second.T)


def test_int8_weights_are_folded_when_the_file_is_loaded(
    export: OnnxExport, tmp_path: Path
) -> None:
    """ONNX Runtime then multiplies by float matrices, as in fp32."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    path = _write(export, tmp_path, "int8-weights")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    products = [n for n in graph.node if n.op_type in ("MatMul", "FusedMatMul", "Gemm")]
    assert len(products) > 8
    assert all(node.input[1] in floats for node in products)


def test_static_ranges_come_from_the_calibration_texts(
    export: OnnxExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(export, tmp_path, "int8-static")
    used = _operators(path)
    assert "QuantizeLinear" in used
    assert "DynamicQuantizeLinear" not in used
    wide = _run(_write(export, tmp_path, "fp32"))["logits"]
    assert np.abs(_run(path)["logits"] - wide).max() < 0.1 * np.abs(wide).max()
    few = Plan(export._plan.task, INPUTS, (16,), calibration=_one_token())
    monkeypatch.setattr(export, "_plan", few)
    assert not np.array_equal(_run(_write(export, tmp_path, "int8-static"))["logits"], wide)


def test_static_ranges_are_not_invented(
    export: OnnxExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(export._plan.task, INPUTS, (16,))
    monkeypatch.setattr(export, "_plan", plan)
    with pytest.raises(ConversionError, match="int8-static needs calibration texts"):
        _write(export, tmp_path, "int8-static")


def _one_token() -> tuple[dict[str, Any], ...]:
    return tuple({name: values[:, :1] for name, values in s.items()} for s in _samples(1))


def _run(path: Path) -> dict[str, Any]:
    with OnnxRuntime().open(path) as session:
        return session.run(_samples(1)[0])


def test_the_reference_engine_refuses_what_is_not_standard(
    export: OnnxExport, tmp_path: Path
) -> None:
    path = _write(export, tmp_path, "fp32")
    with pytest.raises(EngineError, match="onnx-reference cannot load .*MultiHeadAttention"):
        OnnxReference().open(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(EngineError, match="onnx-reference cannot load"):
        OnnxReference().open(path)


def test_the_reference_engine_agrees_with_the_runtime(export: OnnxExport, tmp_path: Path) -> None:
    path = _write(export, tmp_path, "int8", "portable")
    with OnnxReference().open(path) as session:
        found = session.run(_samples(1)[0])
    np.testing.assert_allclose(found["logits"], _run(path)["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_an_lstm_has_a_scale_for_each_unit_of_each_gate(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, precision: str
) -> None:
    source = tiny_checkpoint(tmp_path / "checkpoint", "bilstm")
    export = _open(source)
    path = _write(export, tmp_path, precision)
    # Four gates of 32 units read 32 inputs, in each of two directions.
    scales = [a for a in _stored(path) if a.dtype == np.float32 and a.size == 4 * 32]
    assert len(scales) == 4
    floats = [a for a in _stored(path) if a.dtype == np.float32 and a.size >= 4 * 32 * 32]
    assert floats == []
    full = _run(_write(export, tmp_path, "fp32"))["logits"]
    allowed = {"int8": 0.05, "int4": 0.7}[precision]
    assert np.abs(_run(path)["logits"] - full).max() < allowed * np.abs(full).max()
    wider = _write(export, tmp_path, precision, bilstm__layers__0__ahead="fp32")
    kept = [a for a in _stored(wider) if a.dtype == np.float32 and a.size >= 4 * 32 * 32]
    assert len(kept) == 2
