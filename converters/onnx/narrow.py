"""Weights in fewer bits, and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converters.onnx import blocks, tokens
from converters.onnx.constants import Weight
from converters.onnx.edits import (
    MICROSOFT,
    Array,
    add,
    as_float,
    constant,
    consumers,
    indices,
    rank_of,
    replace,
    values_of,
)
from converters.onnx.ranges import Ranges
from edge.precision import Precision
from edge.quantization import asymmetric, quantize


@dataclass
class Narrowing:
    """How one artifact computes with narrow weights.

    fused: with ONNX Runtime's own operators, else with standard ones. limit: of int8 weights.
    ranges: of activations by name; without them they are measured at run time, of each token if
    `tokenwise`, else of the whole tensor.
    """

    graph: ir.Graph
    fused: bool
    limit: int | None = None
    ranges: Ranges | None = None
    tokenwise: bool = False
    _quantised: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)
    _tokens: dict[ir.Value, tokens.Tokens] = field(default_factory=dict)

    def apply(self, weight: Weight, precision: Precision) -> None:
        """Store one weight at a precision."""
        _WRITERS[precision](self, weight)

    def half(self, weight: Weight) -> None:
        """16-bit float in the file, 32 in arithmetic: ONNX Runtime folds the cast when it loads.

        The CPU kernels of most phones and servers have nothing narrower.
        """
        stored = self._store(weight, "fp16", weight.values.astype(np.float16))
        for node in weight.gathers:
            found = add(node, "Gather", stored, node.inputs[1], axis=0)
            replace(node, as_float(node, found))
        self._restore(weight, lambda anchor: as_float(anchor, stored))

    def int8_weights(self, weight: Weight) -> None:
        """int8 in the file; what looks it up multiplies by scales, products find it unpacked."""
        stored, scales = self._int8(weight)
        self._int8_gathers(weight, stored, scales)
        self._restore(weight, lambda anchor: self._unpacked(anchor, weight, stored, scales))

    def int8(self, weight: Weight) -> None:
        """int8 in the file and in products."""
        stored, scales = self._int8(weight)
        self._int8_gathers(weight, stored, scales)
        for node in weight.matmuls:
            if rank_of(node.inputs[0]) == 2:
                # One row for each text, as in a classifier: rounding it would win no time.
                continue
            if self.fused or self.ranges is None:
                self._int8_product(node, weight, stored, scales)
            else:
                self._dequantised_product(node, weight, stored, scales)
        self._restore(weight, lambda anchor: self._unpacked(anchor, weight, stored, scales))

    def int4(self, weight: Weight) -> None:
        """Two weights to a byte; ONNX Runtime's operators for such."""
        rows = weight.rows()
        values, scales = quantize(rows, 4)
        width = rows.shape[1]
        stored = self._store(weight, "int4", blocks.nibbles(values))
        scale = constant(self.graph, f"{weight.value.name}_scale", scales)
        for node in weight.gathers:
            replace(node, blocks.gather(node, stored, scale, width))
        for node in weight.matmuls:
            replace(node, blocks.product(node, stored, scale, width))
        self._restore(
            weight, lambda anchor: blocks.unpacked(anchor, stored, scale, weight.values.shape)
        )

    def _store(self, weight: Weight, suffix: str, values: Array) -> ir.Value:
        return constant(self.graph, f"{weight.value.name}_{suffix}", values)

    def _restore(self, weight: Weight, unpack: Callable[[ir.Node], ir.Value]) -> None:
        """Give a weight's remaining users its values in float32, which a loader may fold."""
        left = [
            (node, index)
            for node, index in weight.value.uses()
            if node not in weight.gathers
            and (node.op_type != "Transpose" or node.outputs[0].uses())
        ]
        if left:
            first = next(iter(self.graph))
            whole = unpack(first)
            for node, index in left:
                node.replace_input_with(index, whole)

    def _int8(self, weight: Weight) -> tuple[ir.Value, ir.Value]:
        values, scales = quantize(weight.rows(), 8, self.limit)
        values = values.reshape(weight.values.shape) if weight.by_rows else values.T
        stored = self._store(weight, "int8", values)
        return stored, constant(self.graph, f"{weight.value.name}_scale", scales[:, 0])

    def _int8_gathers(self, weight: Weight, stored: ir.Value, scales: ir.Value) -> None:
        for node in weight.gathers:
            found = as_float(node, add(node, "Gather", stored, node.inputs[1], axis=0))
            scale = add(node, "Gather", scales, node.inputs[1], axis=0)
            column = add(node, "Unsqueeze", scale, indices(node, -1))
            replace(node, add(node, "Mul", found, column))

    def _unpacked(
        self, anchor: ir.Node, weight: Weight, stored: ir.Value, scales: ir.Value
    ) -> ir.Value:
        if weight.by_rows:
            shape = indices(
                anchor, *(-1 if i == weight.axis else 1 for i in range(weight.values.ndim))
            )
            scales = add(anchor, "Reshape", scales, shape)
        return add(anchor, "Mul", as_float(anchor, stored), scales)

    def _int8_product(
        self, node: ir.Node, weight: Weight, stored: ir.Value, scales: ir.Value
    ) -> None:
        factor = _turned(node, weight, stored)
        if self.tokenwise and self.ranges is None:
            self._tokenwise_product(node, factor, _columns(weight, stored), scales)
            return
        value, scale, zero = self._activation(node)
        if self.fused:
            last, bias = _with_bias(node)
            inputs = (value, factor, scale, scales, zero, None, bias)
            replace(last, add(node, "MatMulIntegerToFloat", *inputs, domain=MICROSOFT))
            if last is not node:
                self.graph.remove(node, safe=True)
            return
        product = as_float(node, add(node, "MatMulInteger", value, factor, zero))
        replace(node, add(node, "Mul", product, add(node, "Mul", scale, scales)))

    def _tokenwise_product(
        self, node: ir.Node, factor: ir.Value, columns: Array, scales: ir.Value
    ) -> None:
        """A product of integers; each token of the activations has a scale and a zero point.

        columns: the values of `factor`, (inputs, channels).
        """
        value = node.inputs[0]
        assert value is not None
        if value not in self._tokens:
            self._tokens[value] = tokens.quantize_tokens(node)
        quantized = self._tokens[value]
        correction = tokens.zero_point_rows(columns, self.limit)
        extra = constant(self.graph, f"{factor.name}_zero", correction)
        whole = add(node, "Concat", factor, extra, axis=0)
        given = quantized.with_zero_points(node, len(correction))
        if self.fused:
            one = tokens.number(node, "one", 1)
            inputs = (given, whole, one, scales)
            product = add(node, "MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
        else:
            product = as_float(node, add(node, "MatMulInteger", given, whole))
            product = add(node, "Mul", product, scales)
        product = add(node, "Mul", product, quantized.scale)
        last, bias = _with_bias(node)
        # ONNX Runtime would fuse an Add into BiasGelu when it loads the file, a slow loop.
        replace(last, product if bias is None else add(node, "Sum", product, bias))
        if last is not node:
            self.graph.remove(node, safe=True)

    def _dequantised_product(
        self, node: ir.Node, weight: Weight, stored: ir.Value, scales: ir.Value
    ) -> None:
        """A product of floats behind DequantizeLinear, which runtimes make one of integers."""
        given = add(node, "DequantizeLinear", *self._activation(node))
        axis = 0 if weight.by_rows else 1
        factor = _turned(node, weight, add(node, "DequantizeLinear", stored, scales, axis=axis))
        replace(node, add(node, "MatMul", given, factor))

    def _activation(self, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        """A product's first factor as uint8, with its scale and zero point; once for all users."""
        value = node.inputs[0]
        assert value is not None
        if value not in self._quantised:
            if self.ranges is None:
                first = add(node, "DynamicQuantizeLinear", value, outputs=3).producer()
                assert first is not None
                quantised, scale, zero = first.outputs
            else:
                scale, zero = self._static(value)
                quantised = add(node, "QuantizeLinear", value, scale, zero)
            self._quantised[value] = (quantised, scale, zero)
        return self._quantised[value]

    def _static(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        assert self.ranges is not None
        step, zero_point = asymmetric(*self.ranges[str(value.name)])
        scale, zero = np.array(step, np.float32), np.array(zero_point, np.uint8)
        return (
            constant(self.graph, f"{value.name}_scale", scale),
            constant(self.graph, f"{value.name}_zero_point", zero),
        )


def _turned(node: ir.Node, weight: Weight, stored: ir.Value) -> ir.Value:
    """A stored weight as the second factor of a product."""
    return add(node, "Transpose", stored, perm=[1, 0]) if weight.by_rows else stored


def _columns(weight: Weight, stored: ir.Value) -> Array:
    """The integers of a stored weight as (inputs, output channels)."""
    values = values_of(stored)
    assert values is not None
    return values.T if weight.by_rows else values


def _with_bias(node: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """A product's bias and the node that adds it, or the product itself."""
    users = consumers(node.outputs[0])
    if len(users) != 1 or node.outputs[0].is_graph_output() or users[0].op_type != "Add":
        return node, None
    for value in users[0].inputs:
        values = values_of(value)
        if values is not None and values.ndim == 1 and len(values) > 1:
            return users[0], value
    return node, None


_WRITERS: dict[Precision, Callable[[Narrowing, Weight], None]] = {
    Precision.FP32: lambda narrowing, weight: None,
    Precision.FP16: Narrowing.half,
    Precision.INT8: Narrowing.int8,
    Precision.INT8_STATIC: Narrowing.int8,
    Precision.INT8_WEIGHTS: Narrowing.int8_weights,
    Precision.INT4: Narrowing.int4,
}
