"""Padding answers nothing, also where operators slide over neighbouring positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters import ConvertConfig, convert
from edge.checkpoint import load_model, open_checkpoint

TOKENS, PADDED = 11, 20


def _view(source: Path) -> tuple[Any, Any]:
    from converters.graph import ExportView

    checkpoint = open_checkpoint(source)
    model = load_model(checkpoint, attention="eager")
    return model, ExportView(model, checkpoint.task).eval()


def _inputs(length: int) -> dict[str, Any]:
    import torch

    ids = torch.randint(5, 50, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {
        name: torch.nn.functional.pad(value, (0, length - TOKENS)).to(torch.int32)
        for name, value in given.items()
    }


@pytest.mark.parametrize(
    ("architecture", "changes", "slides"),
    [
        ("convbert", {}, True),
        ("convbert", {"conv_kernel_size": 9}, True),
        # Its one convolution follows embeddings that the model itself sets to zero.
        ("deberta-v2", {"conv_kernel_size": 3}, False),
        ("squeezebert", {}, False),
    ],
)
def test_a_padded_view_answers_as_the_unpadded_checkpoint(
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    architecture: str,
    changes: dict[str, Any],
    slides: bool,
) -> None:
    import torch

    from converters.graph import exportable_masks

    model, view = _view(tiny_checkpoint(tmp_path, architecture, **changes))
    with torch.no_grad():
        expected = model(**_inputs(TOKENS)).logits
        plain = model(**_inputs(PADDED)).logits
    scale = float(expected.abs().max())
    # Without the view's help the answer depends on padding.
    assert (float((plain - expected).abs().max()) > 1e-3 * scale) == slides
    with exportable_masks():
        found = view(**_inputs(PADDED))["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)


def test_flexible_graphs_see_no_padding_either(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    from converters.graph import exportable_masks

    model, view = _view(tiny_checkpoint(tmp_path, "convbert"))
    sample, length = _inputs(16), torch.export.Dim("sequence", min=4, max=64)
    with exportable_masks():
        program = torch.export.export(
            view, (), sample, dynamic_shapes={name: {1: length} for name in sample}, strict=False
        )
        expected = model(**_inputs(TOKENS)).logits
        found = program.module()(**_inputs(PADDED))["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_convolutions_over_something_else_are_left_alone() -> None:
    import torch

    from converters.padding import ZeroedPadding

    mask = torch.tensor([[1, 1, 0]])
    weight = torch.ones(1, 1, 3)
    with ZeroedPadding(mask):
        over_positions = torch.conv1d(torch.ones(1, 1, 3), weight, padding=1)
        over_features = torch.conv1d(torch.ones(1, 1, 4), weight, padding=1)
        pointwise = torch.conv1d(torch.ones(1, 1, 3), torch.ones(1, 1, 1))
        windows = torch.nn.functional.unfold(torch.ones(1, 1, 3, 1), (3, 1), padding=(1, 0))
    assert over_positions.flatten().tolist() == [2, 2, 1]
    assert over_features.flatten().tolist() == [2, 3, 3, 2]
    assert pointwise.flatten().tolist() == [1, 1, 1]
    assert windows[0].T.tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert torch.conv1d(torch.ones(1, 1, 3), weight, padding=1).flatten().tolist() == [2, 3, 2]


@pytest.mark.parametrize("architecture", ["convbert", "bilstm"])
def test_every_format_passes(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    """Lengths that the artifacts share, and texts shorter than any of them."""
    source = tiny_checkpoint(tmp_path / "checkpoint", architecture, labels=("a", "b"))
    manifest = convert(
        ConvertConfig(source=str(source), output=tmp_path / "bundle", seq_length=(16, 32))
    )
    errors = {}
    for artifact in manifest.artifacts:
        assert artifact.verification is not None
        errors[artifact.format, artifact.precision] = artifact.verification.max_relative_error
        if artifact.dynamic_sequence:
            assert len(artifact.verification.sequence_lengths) > 2
    assert {name for name, _ in errors} == {"onnx", "tflite", "coreml"}
    for (_, precision), error in errors.items():
        assert error is not None
        assert error < {"fp32": 1e-5, "fp16": 5e-3}.get(precision, 0.1)
