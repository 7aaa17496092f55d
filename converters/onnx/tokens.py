"""Products of 8-bit integers in which every token has a scale and a zero point of its own.

One token with a large value, which most encoders have, would otherwise take the resolution of all,
and padding or another text of the batch would change the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converters.onnx.edits import add, constant, indices
from edge.quantization import Array, largest

_LEVELS = 255
# A token of zeros stays zeros.
_SMALLEST_RANGE = 1e-30
# Rows are added so many at once, so that the factors of one activation can share its integers.
_ROW_MULTIPLE = 16


@dataclass
class Tokens:
    """An activation (..., inputs) in uint8, with scale and zero point of each token (..., 1)."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value
    _widened: dict[int, ir.Value] = field(default_factory=dict)

    def with_zero_points(self, node: ir.Node, count: int) -> ir.Value:
        """The integers and, `count` times, the zero point: (..., inputs + count)."""
        if count not in self._widened:
            zeros = add(node, "Expand", self.zero, indices(node, count))
            self._widened[count] = add(node, "Concat", self.values, zeros, axis=-1)
        return self._widened[count]


def quantize_tokens(node: ir.Node) -> Tokens:
    """The first factor of a product in integers, as DynamicQuantizeLinear does for a tensor."""
    value = node.inputs[0]
    assert value is not None
    last = indices(node, -1)
    top, bottom = number(node, "least_high", _SMALLEST_RANGE), number(node, "most_low", 0)
    high = add(node, "Max", add(node, "ReduceMax", value, last, keepdims=1), top)
    low = add(node, "Min", add(node, "ReduceMin", value, last, keepdims=1), bottom)
    level = number(node, "level", 1 / _LEVELS)
    scale = add(node, "Mul", add(node, "Sub", high, low), level)
    offset = add(node, "Round", add(node, "Div", add(node, "Neg", low), scale))
    zero = add(node, "Cast", offset, to=ir.DataType.UINT8)
    # QuantizeLinear has one axis of scales: the tokens of all texts are that.
    flat = add(node, "Flatten", value, axis=-1)
    parameters = (add(node, "Reshape", each, last) for each in (scale, zero))
    integers = add(node, "QuantizeLinear", flat, *parameters, axis=0)
    return Tokens(add(node, "Reshape", integers, add(node, "Shape", value)), scale, zero)


def number(node: ir.Node, name: str, value: float) -> ir.Value:
    """A float32 constant, one for each name."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    known = graph.initializers.get(name)
    return constant(graph, name, np.array(value, dtype=np.float32)) if known is None else known


def zero_point_rows(factor: Array, limit: int | None) -> Array:
    """Rows (n, channels) of int8 that, times a token's zero point, take its share out of a product.

    factor: int8 (inputs, channels). Each column of the rows adds up to minus that of the factor.
    limit: of the integers, where fewer than 8 bits are safe.
    """
    top = limit or largest(8)
    sums = -factor.sum(axis=0, dtype=np.int64)
    count = -(-max(int(np.abs(sums).max(initial=0)), 1) // top)
    count += -count % _ROW_MULTIPLE
    place = np.arange(count)[:, None] * top
    share = np.clip(np.abs(sums) - place, 0, top)
    rows: Array = (np.sign(sums) * share).astype(np.int8)
    return rows
