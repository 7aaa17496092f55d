"""Which module of the checkpoint a constant of a converted graph came from, told by its values.

Exporters rename, transpose and drop the names of weights; their values stay.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge.precision import SMALL_ELEMENTS

Array = npt.NDArray[Any]


class Owners:
    """The modules whose weights are large enough to be narrowed, e.g. `bert.pooler.dense`."""

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[bytes, str] = {}
        self.sizes: dict[str, int] = {}
        for path, parameter in model.named_parameters():
            if parameter.dim() < 2 or parameter.numel() < SMALL_ELEMENTS:
                continue
            name = path.rpartition(".")[0]
            values = _matrix(parameter.detach().to(torch.float32).cpu().numpy())
            for orientation in (values, values.T):
                self._names.setdefault(digest(orientation), name)
            self.sizes[name] = self.sizes.get(name, 0) + parameter.numel()

    def of(self, values: Array) -> str | None:
        """The module that holds a float32 array, as it is or transposed; None if there is none."""
        return self._names.get(digest(_matrix(values)))


def _matrix(values: Array) -> Array:
    """Kernels of width 1 are matrices with another name."""
    return values.reshape([size for size in values.shape if size != 1] or [1])


def digest(values: Array) -> bytes:
    """What arrays of equal shape and values have in common, and no others."""
    made = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    made.update(np.ascontiguousarray(values).data)
    return made.digest()
