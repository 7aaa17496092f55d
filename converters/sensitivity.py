"""Which layers a precision would harm most, found by narrowing one layer at a time in PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from converters.base import Inputs
from converters.graph import ExportView
from converters.weights import Owners
from edge.precision import Precision
from edge.quantization import fake_quantize, fake_quantize_activations

# Enough to tell layers apart, few enough to run the model once a layer.
_SAMPLES = 24
_QUANTISED_INPUTS = (Precision.INT8, Precision.INT8_STATIC)


def sensitivities(
    view: ExportView, owners: Owners, precision: Precision, samples: Sequence[Inputs]
) -> dict[str, float]:
    """Module -> mean squared change of the outputs when it alone is narrowed, largest first.

    samples: model inputs, int32 (1, n); the first two dozen are used.
    """
    batches = [_tensors(inputs) for inputs in samples[:_SAMPLES]]
    with torch.no_grad(), view.whole():
        expected = [view(**batch) for batch in batches]
        found = {}
        for name in owners.sizes:
            with narrowed(view.model.get_submodule(name), precision):
                outputs = [view(**batch) for batch in batches]
            found[name] = _difference(outputs, expected)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@contextlib.contextmanager
def narrowed(module: nn.Module, precision: Precision) -> Iterator[None]:
    """While active, a module computes with weights, and inputs where they are, of a precision."""
    saved = {n: p.data for n, p in module.named_parameters(recurse=False) if p.dim() >= 2}
    hook = None
    try:
        for name, values in saved.items():
            getattr(module, name).data = narrow_weights(values, precision)
        if precision in _QUANTISED_INPUTS:
            hook = module.register_forward_pre_hook(_narrow_inputs)
        yield
    finally:
        for name, values in saved.items():
            getattr(module, name).data = values
        if hook is not None:
            hook.remove()


def narrow_weights(weights: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Weights (out, in, ...) as a precision stores them, in float.

    Palettes are stood in for by as many evenly spaced values: an upper bound of their error.
    """
    if precision.weight_bits >= 16:
        return weights.half().to(weights.dtype) if precision.weight_bits == 16 else weights
    whole = precision.value.startswith("palette")
    return fake_quantize(weights, precision.weight_bits, whole=whole)


def _narrow_inputs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(fake_quantize_activations(x) if x.is_floating_point() else x for x in inputs)


def _tensors(inputs: Inputs) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def _difference(
    found: Sequence[dict[str, torch.Tensor]], expected: Sequence[dict[str, torch.Tensor]]
) -> float:
    total = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        total += sum(float((ours[name] - theirs[name]).square().mean()) for name in theirs)
    return total / max(len(expected), 1)
