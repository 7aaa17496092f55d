"""A .tflite file of a few operators with a signature for each length, and what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tokenizers import Tokenizer

from edge.bundle import GoldenCase
from tests.benchmark.conftest import TEXTS, tokenizer_json

LABELS = 3


def weights(vocabulary: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "words": random.normal(size=(vocabulary, LABELS)).astype(np.float32),
        "types": random.normal(size=(2, LABELS)).astype(np.float32),
    }


def logits(ids: Any, types: Any, *, vocabulary: int, seed: int = 0) -> Any:
    """What the file answers to the tokens of one text, padding left out; shape (labels,)."""
    held = weights(vocabulary, seed)
    return (held["words"][np.asarray(ids)] + held["types"][np.asarray(types)]).sum(axis=0)


def write_tflite(path: Path, *, lengths: Sequence[int], vocabulary: int, seed: int = 0) -> None:
    """Masked sums of embeddings. Graphs take their inputs in another order than signatures."""
    model = schema.ModelT()
    model.version, model.description = 3, "tiny"
    operators = schema.BuiltinOperator
    codes = (*("GATHER", "ADD", "CAST", "RESHAPE", "MUL", "SUM"),)
    model.operatorCodes = [_code(getattr(operators, name)) for name in codes]
    model.buffers = [_buffer(b"")]
    model.subgraphs, model.signatureDefs = [], []
    held = weights(vocabulary, seed)
    for number, length in enumerate(lengths):
        model.subgraphs.append(_graph(model, held, length))
        model.signatureDefs.append(_signature(number, length))
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _graph(model: Any, held: dict[str, Any], length: int) -> Any:
    kinds = schema.TensorType
    graph = schema.SubGraphT()
    sizes = (1, length)
    graph.tensors = [
        *(_tensor(name, kinds.INT32, sizes) for name in ("ids", "mask", "types")),
        _constant(model, "words", held["words"]),
        _constant(model, "type_words", held["types"]),
        _constant(model, "axis", np.asarray([1], np.int32)),
        _constant(model, "shape", np.asarray([1, length, 1], np.int32)),
        *(_tensor(name, kinds.FLOAT32, (1, length, LABELS)) for name in ("a", "b", "c")),
        _tensor("d", kinds.FLOAT32, sizes),
        _tensor("e", kinds.FLOAT32, (1, length, 1)),
        _tensor("f", kinds.FLOAT32, (1, length, LABELS)),
        _tensor("g", kinds.FLOAT32, (1, LABELS)),
    ]
    index = {tensor.name: n for n, tensor in enumerate(graph.tensors)}
    cast, reshape = schema.CastOptionsT(), schema.ReshapeOptionsT()
    cast.inDataType, cast.outDataType = kinds.INT32, kinds.FLOAT32
    reshape.newShape = [1, length, 1]
    steps = (
        (0, ("words", "ids"), "a", "GatherOptions", schema.GatherOptionsT()),
        (0, ("type_words", "types"), "b", "GatherOptions", schema.GatherOptionsT()),
        (1, ("a", "b"), "c", "AddOptions", schema.AddOptionsT()),
        (2, ("mask",), "d", "CastOptions", cast),
        (3, ("d", "shape"), "e", "ReshapeOptions", reshape),
        (4, ("c", "e"), "f", "MulOptions", schema.MulOptionsT()),
        (5, ("f", "axis"), "g", "ReducerOptions", schema.ReducerOptionsT()),
    )
    graph.operators = [_operator(index, *step) for step in steps]
    graph.inputs = [index["types"], index["ids"], index["mask"]]
    graph.outputs = [index["g"]]
    return graph


def _operator(
    index: dict[str, int], code: int, inputs: Sequence[str], output: str, kind: str, options: Any
) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = [index[name] for name in inputs], [index[output]]
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    operator.builtinOptions = options
    return operator


def _signature(number: int, length: int) -> Any:
    definition = schema.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = f"length_{length}", number
    names = {"input_ids": 0, "attention_mask": 1, "token_type_ids": 2}
    definition.inputs = [_entry(name, tensor) for name, tensor in names.items()]
    definition.outputs = [_entry("logits", 13)]
    return definition


def _entry(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def _tensor(name: str, kind: int, shape: Sequence[int]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, list(shape), 0
    return tensor


def _constant(model: Any, name: str, values: Any) -> Any:
    kind = {"f": schema.TensorType.FLOAT32, "i": schema.TensorType.INT32}[values.dtype.kind]
    tensor = _tensor(name, kind, values.shape)
    model.buffers.append(_buffer(values.tobytes()))
    tensor.buffer = len(model.buffers) - 1
    return tensor


def _buffer(data: bytes) -> Any:
    buffer = schema.BufferT()
    buffer.data = list(data) if data else None
    return buffer


def _code(number: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = number, 1
    code.deprecatedBuiltinCode = min(number, 127)
    return code


def golden_cases(vocabulary: int) -> list[GoldenCase]:
    """The texts of the tests and what the models answer."""
    tokenizer = Tokenizer.from_str(tokenizer_json())
    found = [(text, tokenizer.encode(text)) for text in TEXTS]
    return [
        GoldenCase(
            text,
            None,
            one.ids,
            one.type_ids,
            {"logits": logits(one.ids, one.type_ids, vocabulary=vocabulary)},
        )
        for text, one in found
    ]
