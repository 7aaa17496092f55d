"""Padding that answers nothing: operators that slide over neighbours must not see it.

Attention is masked by the model itself. A convolution over positions is not: next to the last real
token it reads what the model computed for padding, where a text without padding has zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# What slides over dimension 2 of its input, (batch, channels, sequence) or (..., sequence, 1).
_SLIDING: tuple[Callable[..., Any], ...] = (torch.conv1d, functional.unfold)


class ZeroedPadding(TorchFunctionMode):
    """While active, sliding operators read zeros at padded positions, as at a text's two ends.

    attention_mask: (batch, sequence) of 0 and 1. Operators whose input has another length than
    the mask work on something else than positions and are left alone.
    """

    def __init__(self, attention_mask: torch.Tensor) -> None:
        super().__init__()
        self._mask = attention_mask

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SLIDING and args and _span(func, args, kwargs) > 1:
            args = (self._zeroed(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _zeroed(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim < 3 or not _same_length(x.shape[2], self._mask.shape[1]):
            return x
        mask = self._mask[:, None, :].to(x.dtype)
        return x * (mask if x.ndim == 3 else mask[..., None])


def _same_length(first: int | torch.SymInt, second: int | torch.SymInt) -> bool:
    # Comparing a fixed size with a flexible one would tie the exported graph to it.
    return isinstance(first, int) == isinstance(second, int) and bool(first == second)


def _span(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many positions one result reads."""
    second = args[1] if len(args) > 1 else None
    if func is torch.conv1d:
        weight = kwargs["weight"] if second is None else second
        return int(weight.shape[-1])
    kernel = kwargs["kernel_size"] if second is None else second
    return int(kernel if isinstance(kernel, int) else kernel[0])
