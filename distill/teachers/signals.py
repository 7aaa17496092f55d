"""A teacher's signals as named columns, and back; the answers of masked LMs as their best tokens.

Every signal has its token axes first after the batch here, so that a row can be cut to its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.signals.capture import Need, Signals
from distill.teachers.store import Column
from edge.tasks import Task

Array = npt.NDArray[Any]
Each = Literal["row", "token", "square"]
Floats = Literal["float32", "float16"]
ATTENDED = "attended"
INPUT_IDS = "input_ids"
OUTPUTS = "outputs"
# Column endings of an answer that is kept in part.
_BEST, _TOKENS, _REST = "best", "tokens", "rest"


class _Layout(NamedTuple):
    """How a field of Signals lies: which axes count tokens, and the axes' order on disk."""

    each: Each
    axes: tuple[int, ...]


_FIELDS: dict[str, _Layout] = {
    "hidden_states": _Layout("token", (0, 1, 2)),
    "queries": _Layout("token", (0, 2, 1, 3)),
    "keys": _Layout("token", (0, 2, 1, 3)),
    "values": _Layout("token", (0, 2, 1, 3)),
    "attention_scores": _Layout("square", (0, 2, 3, 1)),
    ATTENDED: _Layout("square", (0, 2, 3, 1)),
    # Of a row where a task answers once for each, then without the axis of tokens.
    "features": _Layout("token", (0, 1, 2)),
}


class Part(NamedTuple):
    """One column of a batch: (B, L, ..., *shape), with as many L as `each` says."""

    each: Each
    dtype: Literal["float32", "float16", "int32", "bool"]
    values: Tensor

    def column(self, name: str) -> Column:
        axes = ("row", "token", "square").index(self.each)
        shape = tuple(self.values.shape[1 + axes :])
        return Column(name=name, dtype=self.dtype, each=self.each, shape=shape)


def parts_of(signals: Signals, task: Task, *, dtype: Floats, top_k: int | None) -> dict[str, Part]:
    """Columns by name. Answers stay float32; `dtype` is that of what happens inside.

    top_k: of an answer over a vocabulary, how many tokens are kept; all when None.
    """
    found: dict[str, Part] = {}
    for name, value in signals.outputs.items():
        axes = task.outputs.get(name, ())
        each: Each = "token" if "sequence" in axes else "row"
        if top_k is not None and "vocabulary" in axes and top_k < value.shape[-1]:
            found |= _best(f"{OUTPUTS}.{name}", value, top_k)
        else:
            found[f"{OUTPUTS}.{name}"] = Part(each, "float32", value)
    for name, layout in _FIELDS.items():
        for layer, value in getattr(signals, name).items():
            axes = layout.axes[: value.ndim]
            ordered = value.expand(_rows(signals), *value.shape[1:]).permute(axes)
            kept = "bool" if value.dtype == torch.bool else dtype
            each = layout.each if axes == layout.axes else "row"
            found[f"{name}.{layer}"] = Part(each, kept, ordered)
    return found


def names_of(needs: Iterable[Need]) -> set[str]:
    """The columns that hold what `needs` asks for."""
    return {f"{need.field}.{need.layer}" for need in needs}


def wanted(names: set[str], available: Mapping[str, Any]) -> list[str]:
    """The columns to read for `names`: those, all answers, and where those layers look."""
    layers = {name.partition(".")[2] for name in names if not name.startswith("hidden_states.")}
    looks = {f"{ATTENDED}.{layer}" for layer in layers}
    return [n for n in available if n in names or n in looks or n.startswith(f"{OUTPUTS}.")]


def signals_of(read: Callable[[str], Tensor], names: list[str], vocabulary: int | None) -> Signals:
    """The signals of the columns `names`, each as `read` gives it."""
    fields: dict[str, dict[Any, Tensor]] = {OUTPUTS: {}}
    for name in names:
        field, _, rest = name.partition(".")
        if field == OUTPUTS:
            answer, _, ending = rest.partition(".")
            if not ending:
                fields[OUTPUTS][answer] = read(name)
            elif ending == _BEST:
                assert vocabulary is not None
                fields[OUTPUTS][answer] = _spread(read, f"{OUTPUTS}.{answer}", vocabulary)
        else:
            value = read(name)
            axes = np.argsort(_FIELDS[field].axes[: value.ndim]).tolist()
            fields.setdefault(field, {})[int(rest)] = value.permute(axes)
    return Signals(**fields)


def vocabulary_of(signals: Signals, task: Task) -> int | None:
    """How many tokens an answer over a vocabulary is about; None when there is none."""
    sizes = [
        value.shape[-1]
        for name, value in signals.outputs.items()
        if "vocabulary" in task.outputs.get(name, ())
    ]
    return sizes[0] if sizes else None


def _best(name: str, logits: Tensor, top_k: int) -> dict[str, Part]:
    """The `top_k` largest logits, their tokens, and the logit that all others share.

    With it the softmax of the rebuilt logits has the teacher's own probabilities of the best
    tokens, and what is left is spread evenly.
    """
    best, tokens = logits.float().topk(top_k, dim=-1)
    others = logits.float().scatter(-1, tokens, -math.inf)
    rest = others.logsumexp(-1) - math.log(logits.shape[-1] - top_k)
    return {
        f"{name}.{_BEST}": Part("token", "float32", best),
        f"{name}.{_TOKENS}": Part("token", "int32", tokens),
        f"{name}.{_REST}": Part("token", "float32", rest),
    }


def _spread(read: Callable[[str], Tensor], name: str, vocabulary: int) -> Tensor:
    best, tokens, rest = (read(f"{name}.{part}") for part in (_BEST, _TOKENS, _REST))
    # (B, L) to (B, L, vocabulary)
    logits = rest.unsqueeze(-1).repeat(1, 1, vocabulary)
    return logits.scatter_(-1, tokens.long(), best)


def _rows(signals: Signals) -> int:
    return len(next(iter(signals.outputs.values())))
