"""Recurrent MIL operators.

Each function takes MIL's own parameter names and defaults. Floats are float32 arrays whatever the
program says; the caller rounds results to the declared type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.engines.base import Array
from edge.engines.mil.elementwise import sigmoid

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    direction: str = "forward",
    output_sequence: Array | bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Long short-term memory over x (s, b, in), gates in the order input, forget, output, cell.

    Returns the states of every step or of the last, (s or 1, b, directions * H), the last hidden
    state and the last cell state. Peepholes are not implemented. Hochreiter and Schmidhuber 1997.
    """
    names = (recurrent_activation, cell_activation, activation)
    functions = tuple(_ACTIVATIONS[name] for name in names)
    limit = None if clip is None else float(clip)
    passes = [(weight_ih, weight_hh, bias, direction == "reverse")]
    if direction == "bidirectional":
        if weight_ih_back is None or weight_hh_back is None:
            raise ValueError("a bidirectional lstm needs the weights of both directions")
        passes.append((weight_ih_back, weight_hh_back, bias_back, True))
    states, hidden, cells = [], [], []
    starts = zip(
        np.split(initial_h, len(passes), -1), np.split(initial_c, len(passes), -1), strict=True
    )
    for (w_ih, w_hh, offset, backwards), (h, c) in zip(passes, starts, strict=True):
        projected = x @ w_ih.T if offset is None else x @ w_ih.T + offset
        steps, h, c = _recur(projected, h, c, w_hh, functions, limit, backwards=backwards)
        states.append(steps if bool(output_sequence) else h[None])
        hidden.append(h)
        cells.append(c)
    return np.concatenate(states, -1), np.concatenate(hidden, -1), np.concatenate(cells, -1)


def _recur(
    projected: Array,
    h: Array,
    c: Array,
    weight_hh: Array,
    functions: tuple[Callable[[Array], Array], ...],
    clip: float | None,
    *,
    backwards: bool,
) -> tuple[Array, Array, Array]:
    """Run one direction over projected inputs (s, b, 4H); returns all states (s, b, H), h and c."""
    gate, cell, output = functions
    states = np.empty((*projected.shape[:2], h.shape[-1]), projected.dtype)
    steps = range(projected.shape[0])
    for step in reversed(steps) if backwards else steps:
        into, forget, out, candidate = np.split(projected[step] + h @ weight_hh.T, 4, -1)
        if clip is not None:
            candidate = np.clip(candidate, -clip, clip)
        c = gate(forget) * c + gate(into) * cell(candidate)
        h = gate(out) * output(c)
        states[step] = h
    return states, h, c


RECURRENT: dict[str, Callable[..., tuple[Array, ...]]] = {"lstm": lstm}
