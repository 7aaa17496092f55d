"""The weights in an exported graph: each stored once, and found with whatever uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.onnx.edits import Array, add, axis_of, constant, nodes, replace, values_of
from converters.weights import Owners, digest
from edge.precision import SMALL_ELEMENTS


@dataclass
class Weight:
    """One stored matrix or kernel, float32, large enough to be narrowed.

    gathers: what looks rows up in it. matmuls: what multiplies by it, as second input. others:
    any other user, with the number of the input. by_rows: whether it is stored with a row for each
    embedding or output channel; otherwise, as only matrix products do, with a column.
    """

    value: ir.Value
    owner: str | None
    by_rows: bool
    gathers: list[ir.Node] = field(default_factory=list)
    matmuls: list[ir.Node] = field(default_factory=list)
    others: list[tuple[ir.Node, int]] = field(default_factory=list)

    @property
    def values(self) -> Array:
        found = values_of(self.value)
        assert found is not None
        return found

    @property
    def axis(self) -> int:
        """The axis of output channels or embeddings; an LSTM's directions come before its gates."""
        shape = self.values.shape
        return next((i for i, size in enumerate(shape) if size > 1), 0) if self.by_rows else 1

    def rows(self) -> Array:
        """The values as (output channels or embeddings, inputs)."""
        if not self.by_rows:
            return self.values.T
        return self.values.reshape(self.values.shape[self.axis], -1)


def store_once(graph: ir.Graph) -> None:
    """Make equal weights one, also where a product uses an embedding table transposed."""
    for node in nodes(graph, "Gemm"):
        _split_gemm(node)
    kept: dict[bytes, ir.Value] = {}
    found = sorted(_large(graph), key=_is_product_only)
    for value in found:
        products = _is_product_only(value)
        values = values_of(value)
        assert values is not None
        first = kept.setdefault(digest(values.T if products else values), value)
        if first is value:
            continue
        for node, index in list(value.uses()):
            turned = products and not _is_product_only(first)
            node.replace_input_with(
                index, add(node, "Transpose", first, perm=[1, 0]) if turned else first
            )
        del graph.initializers[str(value.name)]


def find_weights(graph: ir.Graph, owners: Owners) -> list[Weight]:
    """Every weight worth narrowing: matrices, tables, and what else a module of the model owns."""
    found = []
    for value in _large(graph):
        values = values_of(value)
        assert values is not None
        # Exporters reorder an LSTM's gates; its name is left.
        named = str(value.name).rpartition(".")[0].removeprefix("model.")
        owner = owners.of(values) or (named if named in owners.sizes else None)
        weight = Weight(value, owner, by_rows=not _is_product_only(value))
        for node, index in value.uses():
            _add_use(weight, node, index)
        if weight.owner or not weight.others:
            found.append(weight)
    return found


def _add_use(weight: Weight, node: ir.Node, index: int) -> None:
    followers = [n for n, i in node.outputs[0].uses() if n.op_type == "MatMul" and i == 1]
    if _is_product(node, index):
        weight.matmuls.append(node)
    elif node.op_type == "Gather" and index == 0 and axis_of(node, 0) == 0:
        weight.gathers.append(node)
    elif node.op_type == "Transpose" and len(followers) == len(node.outputs[0].uses()):
        weight.matmuls.extend(followers)
    else:
        weight.others.append((node, index))


def _large(graph: ir.Graph) -> list[ir.Value]:
    return [
        value
        for value in graph.initializers.values()
        if value.dtype == ir.DataType.FLOAT
        and value.shape is not None
        and value.shape.rank() >= 2
        and math.prod(value.shape.numpy()) >= SMALL_ELEMENTS
        and value.uses()
    ]


def _is_product(node: ir.Node, index: int) -> bool:
    return node.op_type == "MatMul" and index == 1


def _is_product_only(value: ir.Value) -> bool:
    """Whether a matrix is only ever the second factor of products."""
    flat = value.shape is not None and value.shape.rank() == 2
    return flat and all(_is_product(node, index) for node, index in value.uses())


def _split_gemm(node: ir.Node) -> None:
    """A product and a sum, as all other layers are exported."""
    scales = [node.attributes[n].as_float() for n in ("alpha", "beta") if n in node.attributes]
    turned = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    first = "transA" in node.attributes and node.attributes["transA"].as_int() == 1
    matrix, graph = values_of(node.inputs[1]), node.graph
    if matrix is None or graph is None or first or any(scale != 1 for scale in scales):
        return
    factor = node.inputs[1]
    assert factor is not None
    if turned:
        factor = constant(graph, f"{factor.name}_t", matrix.T)
    product = add(node, "MatMul", node.inputs[0], factor)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    replace(node, product if bias is None else add(node, "Add", product, bias))
