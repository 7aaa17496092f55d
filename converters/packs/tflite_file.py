"""Changes to a .tflite file: one fixed length out of several, an activation at its end.

A .tflite file is a flatbuffer; the classes that read and write one come with LiteRT.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edge.errors import ConversionError

_IDENTIFIER = b"TFL3"
_METADATA = "TFLITE_METADATA"
# What else of the converter's own notes a runtime reads.
_KEPT_NOTES = (b"min_runtime_version",)
# Buffers are used in place, so their data must be as aligned as kernels expect it.
_ALIGNMENT = 16


def read_model(data: bytes) -> Any:
    """The object form (ModelT) of a .tflite file, with the data of every buffer in it."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        # Quantisers put the data behind the flatbuffer, at an offset from the file's beginning.
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any) -> bytes:
    """The file of a ModelT, with every buffer aligned."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def CreateNumpyVector(self, values: Any) -> Any:
            """As the base, but bytes start at a multiple of 16."""
            if values.dtype != np.uint8:
                return super().CreateNumpyVector(values)
            self.StartVector(1, values.size, _ALIGNMENT)
            self.head = int(self.Head() - values.size)
            self.Bytes[self.Head() : self.Head() + values.size] = values.tobytes()
            self.vectorNumElems = values.size
            return self.EndVector()

    builder = Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def keep_signature(model: Any, length: int) -> Any:
    """Leave one signature, the one whose inputs are (1, length), its subgraph and its buffers.

    Returns the signature. Raises ConversionError when there is none, or when its operators call
    other subgraphs.
    """
    signature = _signature(model, length)
    graph = model.subgraphs[signature.subgraphIndex]
    calls = _calling_operators(model, graph)
    if calls:
        raise ConversionError(
            f"the .tflite file uses operators that call other parts of it ({', '.join(calls)}), "
            "which cannot be cut to one length"
        )
    signature.subgraphIndex = 0
    model.subgraphs, model.signatureDefs = [graph], [signature]
    _drop_operator_codes(model, graph)
    _drop_buffers(model, graph)
    return signature


def append_activation(model: Any, signature: Any, activation: str, name: str) -> None:
    """Put a softmax or sigmoid behind the only output, which becomes the output called `name`."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    (logits,) = (int(index) for index in graph.outputs)
    source = graph.tensors[logits]
    if source.type != schema.TensorType.FLOAT32:
        raise ConversionError("the output of the .tflite file is not float32: pack another")
    result = schema.TensorT()
    result.name, result.shape, result.type = name, source.shape, source.type
    result.buffer, result.hasRank = 0, True
    graph.tensors.append(result)
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [logits], [len(graph.tensors) - 1]
    code = schema.BuiltinOperator.LOGISTIC
    if activation == "softmax":
        code = schema.BuiltinOperator.SOFTMAX
        operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
        operator.builtinOptions = schema.SoftmaxOptionsT()
        operator.builtinOptions.beta = 1.0
    operator.opcodeIndex = operator_code(model, code)
    graph.operators.append(operator)
    graph.outputs = operator.outputs
    (output,) = signature.outputs
    output.name, output.tensorIndex = name, operator.outputs[0]


def arrange_inputs(model: Any, signature: Any, names: dict[str, str]) -> None:
    """Order the inputs as `names` does, signature name -> tensor name; absent ones are added.

    An added input is read by no operator: the caller may fill it with anything.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    known = {_text(entry.name): entry for entry in signature.inputs}
    like = graph.tensors[int(graph.inputs[0])]
    for name in names:
        if name not in known:
            tensor = schema.TensorT()
            tensor.shape, tensor.type, tensor.buffer, tensor.hasRank = (
                like.shape,
                like.type,
                0,
                True,
            )
            graph.tensors.append(tensor)
            known[name] = schema.TensorMapT()
            known[name].name, known[name].tensorIndex = name, len(graph.tensors) - 1
    signature.inputs = [known[name] for name in names]
    graph.inputs = [entry.tensorIndex for entry in signature.inputs]
    for entry, tensor_name in zip(signature.inputs, names.values(), strict=True):
        graph.tensors[entry.tensorIndex].name = tensor_name


def set_metadata(model: Any, content: bytes) -> None:
    """Attach the metadata that Task libraries read."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    note = schema.MetadataT()
    note.name, note.buffer = _METADATA, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), note]


def operator_code(model: Any, code: int) -> int:
    """The index of a builtin operator's code, version 1, added when it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    for index, known in enumerate(model.operatorCodes):
        if known.builtinCode == code and known.version == 1:
            return index
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = 1
    model.operatorCodes.append(entry)
    return len(model.operatorCodes) - 1


def _signature(model: Any, length: int) -> Any:
    for signature in model.signatureDefs or []:
        graph = model.subgraphs[signature.subgraphIndex]
        shapes = {tuple(graph.tensors[int(i)].shape) for i in graph.inputs}
        if shapes == {(1, length)}:
            return signature
    raise ConversionError(f"the .tflite file has no signature of length {length}")


def _calling_operators(model: Any, graph: Any) -> list[str]:
    """Names of the operators with an attribute that is the index of a subgraph."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    found = set()
    for operator in graph.operators:
        for options in (operator.builtinOptions, operator.builtinOptions2):
            attributes = vars(options) if options is not None else ()
            if any("subgraph" in attribute.lower() for attribute in attributes):
                found.add(names[model.operatorCodes[operator.opcodeIndex].builtinCode])
    return sorted(found)


def _drop_operator_codes(model: Any, graph: Any) -> None:
    kept = sorted({operator.opcodeIndex for operator in graph.operators})
    places = {old: new for new, old in enumerate(kept)}
    model.operatorCodes = [model.operatorCodes[index] for index in kept]
    for operator in graph.operators:
        operator.opcodeIndex = places[operator.opcodeIndex]


def _drop_buffers(model: Any, graph: Any) -> None:
    """Keep the buffers of this graph's tensors and of the notes that a runtime reads."""
    model.metadata = [n for n in model.metadata or [] if _bytes(n.name) in _KEPT_NOTES]
    model.metadataBuffer = None
    holders: Sequence[Any] = [*graph.tensors, *model.metadata]
    # Buffer 0 is the empty one, by the format's own rule.
    kept = _unique([0, *(holder.buffer for holder in holders)])
    places = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[index] for index in kept]
    for holder in holders:
        holder.buffer = places[holder.buffer]


def _unique(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode()


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
