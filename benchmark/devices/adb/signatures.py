"""What a .tflite file's signatures take and give, in the order of their graphs."""

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
    """name: what the signature calls it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Signature:
    """key: its name; None where the file has one only, which needs none."""

    key: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Tokens of its inputs."""
        return self.inputs[0].shape[1]


def read_signatures(path: Path) -> dict[int, Signature]:
    """Length in tokens -> signature. Raises MeasurementError for a file without any."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    count = model.SignatureDefsLength()
    found = [_signature(model, model.SignatureDefs(n), named=count > 1) for n in range(count)]
    if not found:
        raise MeasurementError(f"{path} has no signatures: convert it again with edge convert")
    return {signature.length: signature for signature in found}


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
    """Those that the graph lists, as the signature calls them."""
    names = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
    found = []
    for index in order.tolist():
        tensor = graph.Tensors(index)
        shape = tuple(tensor.ShapeAsNumpy().tolist()) if tensor.ShapeLength() else ()
        name = names.get(index, tensor.Name().decode())
        if tensor.Type() not in _TYPES:
            raise MeasurementError(f"tensor '{name}' has a type that cannot be sent to a device")
        found.append(Tensor(name, np.dtype(_TYPES[tensor.Type()]), shape))
    return tuple(found)
