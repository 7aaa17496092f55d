"""The MIL operators of the interpreter, by MIL name.

To add one, write a function with MIL's parameter names and defaults in the module of its kind, put
it in that module's table, and add a case to tests/edge/test_mil_operators.py.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.engines.base import Array
from edge.engines.mil.elementwise import ELEMENTWISE
from edge.engines.mil.layers import LAYERS
from edge.engines.mil.recurrent import RECURRENT
from edge.engines.mil.scatter import SCATTER
from edge.engines.mil.tensors import TENSORS
from edge.engines.mil.weights import WEIGHTS

Operator = Callable[..., Array | tuple[Array, ...]]

OPERATORS: dict[str, Operator] = {
    **ELEMENTWISE,
    **TENSORS,
    **SCATTER,
    **LAYERS,
    **RECURRENT,
    **WEIGHTS,
}

# Operators whose results are elements of their inputs, so already rounded; `pad` and similar
# operators may add a constant of the same type.
MOVES = frozenset(TENSORS) - {"cumsum", "range_1d"} | {
    "abs",
    "identity",
    "maximum",
    "minimum",
    "clip",
    "reduce_max",
    "reduce_min",
    "relu",
    "select",
}
