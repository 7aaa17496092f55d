"""Small edits of an ONNX graph in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
# The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"


def add(anchor: ir.Node, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
    """A new operator before `anchor`, whose place in the checkpoint it shares; its output.

    outputs: an attribute too, the number of outputs; all of them are then `.producer().outputs`.
    """
    count = attributes.pop("outputs", 1)
    domain = attributes.pop("domain", "")
    node = ir.node(
        op_type,
        list(inputs),
        attributes,
        domain=domain,
        num_outputs=count,
        metadata_props=dict(anchor.metadata_props),
    )
    graph = anchor.graph
    assert graph is not None
    graph.insert_before(anchor, node)
    if domain:
        graph.opset_imports.setdefault(domain, 1)
    return node.outputs[0]


def as_float(anchor: ir.Node, value: ir.Value) -> ir.Value:
    """A value cast to float32."""
    return add(anchor, "Cast", value, to=ir.DataType.FLOAT)


def constant(graph: ir.Graph, name: str, values: Array) -> ir.Value:
    """A new constant, called `name` or as near to it as is free."""
    unique, count = name, 0
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.ascontiguousarray(values), name=unique)
    value = ir.Value(
        name=unique,
        shape=ir.Shape(values.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def indices(anchor: ir.Node, *values: int) -> ir.Value:
    """A constant int64 (n,), one for each list of values."""
    graph = anchor.graph
    assert graph is not None
    name = "indices_" + "_".join(str(value) for value in values)
    found = graph.initializers.get(name)
    return constant(graph, name, np.array(values, dtype=np.int64)) if found is None else found


def values_of(value: ir.Value | None) -> Array | None:
    """The values of a constant; None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def replace(node: ir.Node, *outputs: ir.Value) -> None:
    """Remove a node; its users take these values instead, which get its outputs' names."""
    for old, new in zip(node.outputs, outputs, strict=False):
        if not old.uses() and not old.is_graph_output():
            continue
        new.shape, new.type = old.shape or new.shape, old.type or new.type
        name, old.name = old.name, None
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = name
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)


def consumers(value: ir.Value) -> list[ir.Node]:
    """The nodes that take a value, each once."""
    return list(dict.fromkeys(node for node, _ in value.uses()))


def nodes(graph: ir.Graph, *op_types: str) -> Iterator[ir.Node]:
    """The nodes of some types, or all; they may be replaced meanwhile."""
    yield from [node for node in graph if not op_types or node.op_type in op_types]


def axis_of(node: ir.Node, default: int) -> int:
    """The attribute `axis`."""
    return node.attributes["axis"].as_int() if "axis" in node.attributes else default


def rank_of(value: ir.Value | None) -> int | None:
    """The number of dimensions, where it is known."""
    return None if value is None or value.shape is None else value.shape.rank()


def clean(model: ir.Model) -> None:
    """Drop what nothing uses and what is known of shapes, which edits make stale."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    declared = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if value not in declared:
                value.shape, value.type = None, None
