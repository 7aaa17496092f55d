"""Where only the first token is read, as by most classifiers, compute only that one.

The last layer's other tokens are needed for its keys and values, not for what follows them.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.onnx.edits import add, axis_of, indices, rank_of, values_of

_UNARY = ("Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "Cast", "Identity", "Sqrt", "Neg", "Exp")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Sum", "Pow", *_UNARY)
# Tokens are this dimension of (batch, sequence, features).
_TOKENS = 1


def keep_first_token(graph: ir.Graph) -> None:
    """Cut activations to their first token as early as nothing reads another."""
    whole = _read_whole(graph)
    cut = {node for node in graph if not _reads_first(node) and _is_cut(node, whole)}
    inputs = [(node, index, axis) for node in cut for index, axis in _token_inputs(node).items()]
    made: dict[tuple[ir.Value, int], ir.Value] = {}
    order = {node: place for place, node in enumerate(graph)}
    for node, index, axis in sorted(inputs, key=lambda item: order[item[0]]):
        value = node.inputs[index]
        assert value is not None
        if value in whole or value.producer() not in cut:
            if (value, axis) not in made:
                bounds = (indices(node, number) for number in (0, 1, axis))
                made[value, axis] = add(node, "Slice", value, *bounds)
            node.replace_input_with(index, made[value, axis])


def _read_whole(graph: ir.Graph) -> set[ir.Value]:
    """The values of which something reads more than the first token."""
    whole: set[ir.Value] = set(graph.outputs)
    for node in reversed(list(graph)):
        if _reads_first(node):
            spared = {0}
        elif _is_cut(node, whole):
            spared = set(_token_inputs(node))
        else:
            spared = set()
        whole |= {v for i, v in enumerate(node.inputs) if v is not None and i not in spared}
    return whole


def _is_cut(node: ir.Node, whole: set[ir.Value]) -> bool:
    """Whether a node works token by token and only the first of its results is read."""
    return bool(_token_inputs(node)) and not any(value in whole for value in node.outputs)


def _reads_first(node: ir.Node) -> bool:
    """Whether a node takes the first token of its input, and nothing else."""
    if node.op_type not in ("Gather", "Slice") or rank_of(node.inputs[0]) != 3:
        return False
    given = [values_of(value) for value in node.inputs[1:]]
    if any(values is None for values in given):
        return False
    chosen = [values.tolist() for values in given if values is not None]
    if node.op_type == "Gather":
        return axis_of(node, 0) == _TOKENS and chosen == [0]
    return node.op_type == "Slice" and chosen in ([[0], [1], [_TOKENS]], [[0], [1], [_TOKENS], [1]])


def _token_inputs(node: ir.Node) -> dict[int, int]:
    """The inputs that a node works on token by token, with the dimension that the tokens are.

    Empty for every other node, such as one that mixes tokens.
    """
    inputs = dict(enumerate(node.inputs))
    if node.op_type in _ELEMENTWISE:
        found = {i: _TOKENS for i, v in inputs.items() if v is not None and not _is_row(v)}
    elif node.op_type == "MultiHeadAttention":
        # Each query is answered on its own; the bias is (batch, heads, queries, keys).
        found = {} if any(v is not None for v in node.inputs[6:]) else {0: _TOKENS}
        if found and inputs.get(5) is not None:
            found[5] = 2
    elif node.op_type == "LayerNormalization":
        found = {0: _TOKENS} if axis_of(node, -1) == -1 else {}
    elif node.op_type == "MatMul":
        weight = values_of(node.inputs[1])
        found = {0: _TOKENS} if weight is not None and weight.ndim == 2 else {}
    else:
        found = {}
    known = all(rank_of(inputs[i]) == (4 if axis == 2 else 3) for i, axis in found.items())
    return found if known else {}


def _is_row(value: ir.Value) -> bool:
    """Whether a value is a constant that all tokens share."""
    values = values_of(value)
    return values is not None and values.ndim <= 1
