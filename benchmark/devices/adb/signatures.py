"""Inputs and outputs of a .tflite file's signatures, in the order of their graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import MeasurementError

# TensorType of the TFLite schema.
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 4: "<i8", 9: "i1"}


@dataclass(frozen=True)
class Tensor:
    """An input or output. name: in the signature."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Signature:
    """A signature. key: its name; None if it is the only one of the file."""

    key: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Length of its inputs in tokens."""
        return self.inputs[0].shape[1]


def read_signatures(path: Path) -> dict[int, Signature]:
    """Return length in tokens -> signature; raises MeasurementError for a file without any."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    count = model.SignatureDefsLength()
    signatures = [_signature(model, model.SignatureDefs(n), named=count > 1) for n in range(count)]
    if not signatures:
        raise MeasurementError(f"{path} has no signatures: convert it again with edge convert")
    return {signature.length: signature for signature in signatures}


def _signature(model: Any, definition: Any, *, named: bool) -> Signature:
    graph = model.Subgraphs(definition.SubgraphIndex())
    inputs = [definition.Inputs(n) for n in range(definition.InputsLength())]
    outputs = [definition.Outputs(n) for n in range(definition.OutputsLength())]
    return Signature(
        key=definition.SignatureKey().decode() if named else None,
        inputs=_tensors(graph, graph.InputsAsNumpy(), inputs),
        outputs=_tensors(graph, graph.OutputsAsNumpy(), outputs),
    )


def _tensors(graph: Any, order: Any, entries: list[Any]) -> tuple[Tensor, ...]:
    """Return the graph's tensors with their names in the signature."""
    names = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
    tensors = []
    for index in order.tolist():
        tensor = graph.Tensors(index)
        shape = tuple(tensor.ShapeAsNumpy().tolist()) if tensor.ShapeLength() else ()
        name = names.get(index, tensor.Name().decode())
        if tensor.Type() not in _TYPES:
            raise MeasurementError(f"tensor '{name}' has a type that cannot be sent to a device")
        tensors.append(Tensor(name, np.dtype(_TYPES[tensor.Type()]), shape))
    return tuple(tensors)
