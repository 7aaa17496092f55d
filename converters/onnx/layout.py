"""Orders of operators that ONNX Runtime's CPU kernels compute fastest; the function is the same."""

from __future__ import annotations

import onnx_ir as ir

from converters.onnx.edits import MICROSOFT, add, nodes, replace


def arrange(model: ir.Model) -> None:
    """All of the below."""
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass

    _read_lengths_from_inputs(model.graph)
    for node in nodes(model.graph, "SkipLayerNormalization"):
        _split_skip_norm(node)
    for node in nodes(model.graph, "BiasGelu"):
        biased = _like(node, add(node, "Add", *node.inputs))
        replace(node, add(node, "Gelu", biased, domain=MICROSOFT))
    CommonSubexpressionEliminationPass()(model)


def _read_lengths_from_inputs(graph: ir.Graph) -> None:
    """Take every batch size and sequence length from an input, so that equal ones are one value."""
    sources = {
        str(size): (value, position)
        for value in graph.inputs
        for position, size in enumerate(value.shape or ())
        if isinstance(size, ir.SymbolicDim) and size.value is not None
    }
    for node in nodes(graph, "Shape"):
        value, start = node.inputs[0], node.attributes.get("start")
        end = node.attributes.get("end")
        if value is None or value.shape is None or start is None or end is None:
            continue
        position = start.as_int()
        if end.as_int() != position + 1 or not 0 <= position < value.shape.rank():
            continue
        source = sources.get(str(value.shape[position]))
        if source is not None:
            where = source[1]
            replace(node, add(node, "Shape", source[0], start=where, end=where + 1))


def _split_skip_norm(node: ir.Node) -> None:
    """SkipLayerNormalization is a slow loop; LayerNormalization and Add are vectorised.

    The sum is a Sum, since ONNX Runtime would fuse an Add back when it loads the file.
    """
    inputs = [*node.inputs, None, None]
    value, skip, scale, shift, bias = inputs[:5]
    if bias is not None:
        value = _like(node, add(node, "Add", value, bias))
    total = _like(node, add(node, "Sum", value, skip))
    normal = add(
        node,
        "LayerNormalization",
        total,
        scale,
        shift,
        axis=-1,
        epsilon=node.attributes["epsilon"].as_float(),
    )
    # Between them are the mean and deviation of training.
    replace(node, normal, normal, normal, total)


def _like(node: ir.Node, value: ir.Value) -> ir.Value:
    """`value`, known to have the shape of a node's first output."""
    value.shape, value.type = node.outputs[0].shape, node.outputs[0].type
    return value
