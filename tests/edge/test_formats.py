"""What targets mean for one another."""

from __future__ import annotations

import pytest

from edge.formats import target_without_vnni


@pytest.mark.parametrize(
    ("form", "target", "precision", "expected"),
    [
        ("onnx", "onnxruntime", "int8", "avx2"),
        ("onnx", "portable", "int8-static", "avx2"),
        ("onnx", "avx2", "int8", None),
        # Float arithmetic does not overflow.
        ("onnx", "onnxruntime", "int8-weights", None),
        ("onnx", "onnxruntime", "fp32", None),
        ("tflite", "litert", "int8", None),
        ("coreml", "ios17", "int8", None),
    ],
)
def test_an_artifact_that_overflows_has_a_target_that_does_not(
    form: str, target: str, precision: str, expected: str | None
) -> None:
    assert target_without_vnni(form, target, precision) == expected
