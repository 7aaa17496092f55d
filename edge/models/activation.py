"""What a cross-encoder does to its logits, as sentence-transformers writes it into config.json.

Source: CrossEncoder.get_default_activation_fn of sentence-transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from edge.bundle.manifest import Activation
from edge.errors import CheckpointError

# The class of torch.nn -> the manifest's name.
_KNOWN: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "none", "Softmax": "softmax"}
_KEY, _OLD_KEY = "sentence_transformers", "sbert_ce_default_activation_function"


def read_activation(values: Mapping[str, Any], *, where: str) -> Activation | None:
    """The activation that a config.json's values name; None where they name none.

    Raises CheckpointError for one that is not supported.
    """
    newer = values.get(_KEY)
    if newer is not None and not isinstance(newer, dict):
        raise CheckpointError(f"{where}: sentence_transformers must be an object")
    named = (newer or {}).get("activation_fn") or values.get(_OLD_KEY)
    if named is None:
        return None
    library, _, kind = str(named).rpartition(".")
    if not library.startswith("torch.nn") or kind not in _KNOWN:
        raise CheckpointError(
            f"{where}: the activation {str(named)!r} is not supported: only "
            f"{', '.join(f'torch.nn.{name}' for name in _KNOWN)}"
        )
    return _KNOWN[kind]


def take_activation(config: Any, other: Any) -> None:
    """Let a configuration name the activation that another one names, or none as that does."""
    for key in (_KEY, _OLD_KEY):
        value = getattr(other, key, None)
        if value is not None or getattr(config, key, None) is not None:
            setattr(config, key, copy.deepcopy(value))
