"""Compressed weights of saved Core ML packages, against coremltools' own decompression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.console import hush
from edge.engines.mil.operators import OPERATORS
from edge.engines.mil.package import unpack_bits
from edge.engines.mil.program import MilProgram


@pytest.fixture(scope="session")
def ct() -> Any:
    with hush():
        return pytest.importorskip("coremltools", reason="coremltools has no wheel here")


def _compress(ct: Any, kind: str) -> Callable[[Any], Any]:
    import coremltools.optimize.coreml as cto

    def uses(function: Any, operator: Any) -> Callable[[Any], Any]:
        return lambda model: function(model, cto.OptimizationConfig(global_config=operator))

    linear, palette = cto.OpLinearQuantizerConfig, cto.OpPalettizerConfig
    return {
        "int8": uses(cto.linear_quantize_weights, linear(weight_threshold=64)),
        "int8_asymmetric": uses(
            cto.linear_quantize_weights, linear(mode="linear", weight_threshold=64)
        ),
        "palette_4": uses(
            cto.palettize_weights, palette(mode="uniform", nbits=4, weight_threshold=64)
        ),
        "palette_6": uses(
            cto.palettize_weights, palette(mode="uniform", nbits=6, weight_threshold=64)
        ),
        "sparse": uses(cto.prune_weights, cto.OpMagnitudePrunerConfig(0.6, weight_threshold=64)),
        "int4_blocks": uses(
            cto.linear_quantize_weights,
            linear(dtype="int4", granularity="per_block", block_size=8, weight_threshold=64),
        ),
        "palette_3_groups": uses(
            cto.palettize_weights,
            palette(
                mode="uniform",
                nbits=3,
                granularity="per_grouped_channel",
                group_size=4,
                weight_threshold=64,
            ),
        ),
    }[kind]


@pytest.fixture(scope="session")
def small_programs(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A two-layer program for iOS 17 and iOS 18, to compress."""
    from coremltools.converters.mil import Builder as mb

    random = np.random.default_rng(5)
    first, second = (random.standard_normal((16, 16)).astype(np.float32) for _ in range(2))

    def body(x: Any) -> Any:
        return mb.linear(x=mb.tanh(x=mb.linear(x=x, weight=first)), weight=second, name="y")

    folder = tmp_path_factory.mktemp("small")
    paths = {name: folder / f"{name}.mlpackage" for name in ("iOS17", "iOS18")}
    for name, path in paths.items():
        target = getattr(ct.target, name)
        with hush():
            program = mb.program(input_specs=[mb.TensorSpec((3, 16))], opset_version=target)(body)
            ct.convert(
                program,
                minimum_deployment_target=target,
                compute_precision=ct.precision.FLOAT32,
            ).save(str(path))
    return paths


@pytest.mark.parametrize(
    ("kind", "target", "operator"),
    [
        ("int8", "iOS17", "constexpr_affine_dequantize"),
        ("int8_asymmetric", "iOS17", "constexpr_affine_dequantize"),
        ("palette_4", "iOS17", "constexpr_lut_to_dense"),
        ("palette_6", "iOS17", "constexpr_lut_to_dense"),
        ("sparse", "iOS17", "constexpr_sparse_to_dense"),
        ("int8", "iOS18", "constexpr_blockwise_shift_scale"),
        ("int4_blocks", "iOS18", "constexpr_blockwise_shift_scale"),
        ("palette_3_groups", "iOS18", "constexpr_lut_to_dense"),
        ("palette_6", "iOS18", "constexpr_lut_to_dense"),
        ("sparse", "iOS18", "constexpr_sparse_to_dense"),
    ],
)
def test_compressed_weights_are_what_coremltools_decompresses(
    ct: Any,
    small_programs: dict[str, Path],
    tmp_path: Path,
    kind: str,
    target: str,
    operator: str,
) -> None:
    import coremltools.optimize.coreml as cto

    with hush():
        original = ct.models.MLModel(str(small_programs[target]), skip_model_load=True)
        compressed = _compress(ct, kind)(original)
        dense = cto.decompress_weights(compressed)
        compressed.save(str(tmp_path / "small.mlpackage"))
        dense.save(str(tmp_path / "full.mlpackage"))
    small = MilProgram.load(tmp_path / "small.mlpackage")
    full = MilProgram.load(tmp_path / "full.mlpackage")
    assert small.operators[operator] == 2
    assert not any(name.startswith("constexpr") for name in full.operators)
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    outputs = small.run({"x": x})["y"]
    np.testing.assert_allclose(outputs, full.run({"x": x})["y"], rtol=1e-5, atol=1e-5)
    assert np.abs(outputs - MilProgram.load(small_programs[target]).run({"x": x})["y"]).max() > 1e-4


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [1, 5, 24, 101])
def test_bits_unpack_as_coremltools_packs_them(ct: Any, bits: int, count: int) -> None:
    from coremltools.optimize._utils import pack_elements_into_bits

    values = np.random.default_rng(3).integers(0, 1 << bits, count).astype(np.uint8)
    packed = pack_elements_into_bits(values, bits)
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), values)


@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 3)), (1, (2, 6)), (-1, (2, 6))])
def test_vector_palettes_agree_with_coremltools(ct: Any, axis: int, shape: tuple[int, ...]) -> None:
    from coremltools.optimize._utils import lut_to_dense

    indices = np.random.default_rng(3).integers(0, 4, (2, 3)).astype(np.uint8)
    lut = np.random.default_rng(4).standard_normal((2, 1, 4, 2)).astype(np.float32)
    actual = OPERATORS["constexpr_lut_to_dense"](indices, lut, vector_axis=np.int32(axis))
    assert actual.shape == shape
    np.testing.assert_array_equal(actual, lut_to_dense(indices, lut.copy(), axis))
