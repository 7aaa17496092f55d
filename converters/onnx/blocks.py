"""Matrices and tables of 4-bit integers, two to a byte, with a scale for each block of a row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.onnx.edits import MICROSOFT, add, as_float, constant, indices, rank_of, values_of
from edge.precision import INT4_BLOCK
from edge.quantization import Array, block_of

# Of the activations in a product; float ones take longer.
_ACCURACY_INT8 = 4
# Stored nibbles are unsigned.
_NIBBLE_ZERO = 8


def nibbles(values: Array) -> Array:
    """Integers (n, k) of -8..7, two to a byte, the first one low: uint8 (n, ceil(k / 2))."""
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    unsigned = (values + _NIBBLE_ZERO).astype(np.uint8)
    packed: Array = unsigned[:, ::2] | (unsigned[:, 1::2] << 4)
    return packed


def gather(node: ir.Node, stored: ir.Value, scales: ir.Value, width: int) -> ir.Value:
    """Rows of a table (n, ceil(width / 2)), as `node` looks them up, in float32."""
    ids = node.inputs[1]
    if block_of(width, 4) == INT4_BLOCK:
        attributes = {"bits": 4, "block_size": INT4_BLOCK, "gather_axis": 0, "quantize_axis": 1}
        return add(
            node, "GatherBlockQuantized", stored, ids, scales, domain=MICROSOFT, **attributes
        )
    rank = rank_of(ids)
    assert rank is not None
    found = _split(node, add(node, "Gather", stored, ids, axis=0), rank + 1, width)
    return add(node, "Mul", found, add(node, "Gather", scales, ids, axis=0))


def product(node: ir.Node, stored: ir.Value, scales: ir.Value, width: int) -> ir.Value:
    """What `node` multiplies, by a matrix (channels, ceil(width / 2))."""
    count, columns = _shape(stored)
    blocks = -(-width // INT4_BLOCK)
    if block_of(width, 4) != INT4_BLOCK:
        # The operator has no longer blocks: the last is filled up, and all share one scale.
        filler = constant(_graph(node), "nibbles_zero", np.array(_NIBBLE_ZERO * 17, dtype=np.uint8))
        missing = blocks * INT4_BLOCK // 2 - columns
        stored = add(node, "Pad", stored, indices(node, 0, 0, 0, missing), filler)
        scales = add(node, "Expand", scales, indices(node, count, blocks))
    return add(
        node,
        "MatMulNBits",
        node.inputs[0],
        add(node, "Reshape", stored, indices(node, count, blocks, INT4_BLOCK // 2)),
        add(node, "Reshape", scales, indices(node, -1)),
        domain=MICROSOFT,
        K=width,
        N=count,
        bits=4,
        block_size=INT4_BLOCK,
        accuracy_level=_ACCURACY_INT8,
    )


def unpacked(
    anchor: ir.Node, stored: ir.Value, scales: ir.Value, shape: tuple[int, ...]
) -> ir.Value:
    """All the values of a weight, in float32 and with its shape."""
    count, blocks = _shape(scales)
    width = int(np.prod(shape)) // count
    values = _split(anchor, stored, 2, width)
    values = add(anchor, "Reshape", values, indices(anchor, count, blocks, width // blocks))
    values = add(anchor, "Mul", values, add(anchor, "Unsqueeze", scales, indices(anchor, -1)))
    return add(anchor, "Reshape", values, indices(anchor, *shape))


def _split(anchor: ir.Node, packed: ir.Value, rank: int, width: int) -> ir.Value:
    """Bytes (..., ceil(width / 2)) to the integers in them as float32 (..., width)."""
    graph, last = _graph(anchor), indices(anchor, -1)
    mask = constant(graph, "nibble_mask", np.array(15, dtype=np.uint8))
    bits = constant(graph, "nibble_bits", np.array(4, dtype=np.uint8))
    zero = constant(graph, "nibble_zero", np.array(_NIBBLE_ZERO, dtype=np.float32))
    low = add(anchor, "BitwiseAnd", packed, mask)
    high = add(anchor, "BitShift", packed, bits, direction="RIGHT")
    parts = (add(anchor, "Unsqueeze", part, last) for part in (low, high))
    pairs = add(anchor, "Concat", *parts, axis=-1)
    flat = add(anchor, "Reshape", pairs, indices(anchor, *[0] * (rank - 1), -1))
    if width % 2:
        flat = add(anchor, "Slice", flat, indices(anchor, 0), indices(anchor, width), last)
    return add(anchor, "Sub", as_float(anchor, flat), zero)


def _shape(value: ir.Value) -> tuple[int, ...]:
    values = values_of(value)
    assert values is not None
    return values.shape


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph
