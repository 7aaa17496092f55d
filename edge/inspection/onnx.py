"""Reader of .onnx files."""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edge.inspection.contents import Contents, bits_of, damaged, is_weight
from edge.inspection.layers import LayerFinder, Operation, readable
from edge.inspection.records import Signature, StoredTensor
from edge.signature import TensorSpec

_TITLE = "ONNX"
_NAMES = {"float": "float32", "double": "float64"}
# Name suffixes of the constants that quantizers add.
_SCALES = ("_scale", "_zero_point")
# Suffix of int4 weights stored as two values per byte, as ONNX Runtime's operators require.
_NIBBLES = "_int4"


def read(path: Path) -> Contents:
    """Parse an .onnx file; raises BundleError when it is not one or is damaged."""
    import onnx

    decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, decode_error) as error:
        raise damaged(path, _TITLE, error) from None
    # Almost any bytes parse as a protobuf message of unknown fields.
    if not model.ir_version or not model.graph.node:
        raise damaged(path, _TITLE, "it holds no graph")
    try:
        return _contents(path, model)
    except (TypeError, ValueError) as error:
        # A name that is not UTF-8 is returned as bytes.
        raise damaged(path, _TITLE, f"a name or number in it makes no sense: {error}") from None


def _contents(path: Path, model: Any) -> Contents:
    nodes = list(_nodes(model.graph))
    layers = LayerFinder(Operation(node.input, node.output, _scope(node)) for node in nodes)
    opsets = ", ".join(f"{o.domain or 'opset'} {o.version}" for o in model.opset_import)
    return Contents(
        version=f"{opsets}, IR {model.ir_version}",
        producer=" ".join((model.producer_name, model.producer_version)).strip() or None,
        signatures=(_signature(path, model.graph),),
        operators=Counter(_operator(node) for node in nodes),
        tensors=tuple(_stored(path, tensor, layers) for tensor in _tensors(model.graph, nodes)),
    )


def _operator(node: Any) -> str:
    """Return the operator name of a node; raises TypeError if it is not UTF-8."""
    if not isinstance(node.op_type, str):
        raise TypeError(f"operator {node.op_type!r} is not UTF-8")
    return node.op_type


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of its nested graphs."""
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending.extend([attribute.g] if attribute.HasField("g") else [])
                pending.extend(attribute.graphs)


def _tensors(graph: Any, nodes: list[Any]) -> Iterator[Any]:
    import onnx

    tensors = list(graph.initializer)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                tensors.extend(attribute.g.initializer)
            if node.op_type == "Constant" and attribute.HasField("t"):
                tensor = onnx.TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0] if node.output else node.name
                tensors.append(tensor)
    return (tensor for tensor in tensors if tensor.data_type != onnx.TensorProto.STRING)


def _scope(node: Any) -> str:
    """Return the source module of a node if the exporter recorded it, else the node's name."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            # A Python list literal: the modules from the outermost, then the operator.
            return next(iter(re.findall(r"'([\w.]+)'", entry.value)[-2:]), "")
    return str(node.name)


def _dtype(path: Path, number: int) -> str:
    import onnx

    try:
        name = onnx.TensorProto.DataType.Name(number).lower()
    except ValueError:
        raise damaged(path, _TITLE, f"it uses data type number {number}") from None
    return _NAMES.get(name, name)


def _stored(path: Path, tensor: Any, layers: LayerFinder) -> StoredTensor:
    dtype = _dtype(path, tensor.data_type)
    shape = tuple(tensor.dims)
    if dtype == "uint8" and tensor.name.endswith(_NIBBLES) and shape:
        dtype, shape = "int4", (*shape[:-1], 2 * shape[-1])
    elements = math.prod(shape)
    size_bytes = -(-elements * bits_of(dtype) // 8)
    if min(shape, default=0) < 0 or not _is_whole(tensor, dtype, size_bytes, elements):
        raise damaged(path, _TITLE, f"the values of '{tensor.name}' do not fill its shape {shape}")
    role: Literal["weight", "scale", "index"] = "index"
    if tensor.name.endswith(_SCALES):
        role = "scale"
    elif is_weight(dtype, elements):
        role = "weight"
    name, layer = layers.locate(tensor.name, readable(tensor.name))
    return StoredTensor(
        name=name,
        dtype=dtype,
        shape=shape,
        elements=elements,
        size_bytes=size_bytes,
        role=role,
        layer=layer,
    )


def _is_whole(tensor: Any, dtype: str, size_bytes: int, elements: int) -> bool:
    """Return True if the file holds as many values as the tensor's shape requires."""
    if tensor.data_location == tensor.EXTERNAL:
        return True
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) == size_bytes
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data)
    count = sum(len(values) for values in (*fields, tensor.uint64_data))
    # Several values narrower than a byte share an entry, a complex one takes two.
    return count == elements or bits_of(dtype) < 8 or "complex" in dtype


def _signature(path: Path, graph: Any) -> Signature:
    stored = {tensor.name for tensor in graph.initializer}
    return Signature(
        name="main",
        inputs=tuple(_spec(path, value) for value in graph.input if value.name not in stored),
        outputs=tuple(_spec(path, value) for value in graph.output),
    )


def _spec(path: Path, value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(
        int(size.dim_value) if size.HasField("dim_value") else size.dim_param or "?"
        for size in kind.shape.dim
    )
    return TensorSpec(name=value.name, dtype=_dtype(path, kind.elem_type), shape=shape)
