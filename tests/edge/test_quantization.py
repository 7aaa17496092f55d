"""One definition of integers: numpy and torch agree, and match it as computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.quantization import asymmetric, fake_quantize, fake_quantize_activations, quantize


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(5, 256), (7, 100), (3, 128)])
def test_torch_computes_with_what_numpy_stores(bits: int, shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weights[1] = 0
    weights[2] *= 1e-20
    values, scales = quantize(weights, bits)
    stored = values.reshape(*scales.shape, -1) * scales[..., None]
    computed = fake_quantize(torch.from_numpy(weights), bits).numpy()
    np.testing.assert_array_equal(computed, stored.reshape(shape))
    assert np.abs(values).max() == 2 ** (bits - 1) - 1
    assert (values[1] == 0).all() and (scales[1] == 1).all()


def test_one_scale_for_a_tensor() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    values, scales = quantize(weights.reshape(1, -1), 8)
    computed = fake_quantize(torch.from_numpy(weights), 8, whole=True).numpy()
    np.testing.assert_array_equal(computed, (values * scales).reshape(4, 64))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1.0, 1.55, (0.01, 100)), (0.5, 2.55, (0.01, 0)), (-2.55, -1.0, (0.01, 255)), (0, 0, (1, 0))],
)
def test_a_range_of_activations_holds_zero(
    low: float, high: float, expected: tuple[float, int]
) -> None:
    assert asymmetric(low, high) == (pytest.approx(expected[0]), expected[1])


def test_activations_are_rounded_to_the_steps_of_their_range() -> None:
    values = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    for dims, rows in ((None, values.reshape(1, -1)), ((-1,), values.reshape(-1, 16))):
        computed = fake_quantize_activations(values, dims).reshape(rows.shape)
        for row, rounded in zip(rows.numpy(), computed.numpy(), strict=True):
            scale, zero = asymmetric(float(row.min()), float(row.max()))
            steps = np.clip(np.rint(row / scale) + zero, 0, 255)
            np.testing.assert_allclose(rounded, (steps - zero) * scale, rtol=1e-12)
