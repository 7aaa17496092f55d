"""What a model reads of the inputs that are there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from edge.embeddings.encoder import SentenceEncoder


def accepted(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs this architecture reads; others would be swallowed without a word."""
    reader = model.encoder if isinstance(model, SentenceEncoder) else model
    known = inspect.signature(reader.forward).parameters
    return {name: value for name, value in inputs.items() if name in known}
