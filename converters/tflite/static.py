"""Activations in 8-bit integers, with the ranges that they had on calibration data.

Only matrices are multiplied in integers: what goes into them and what comes out is quantised.
Softmax, norms and GELU between them stay float, where eight bits would cost an encoder its answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.base import Inputs
from converters.tflite.flatbuffer import Array, Program
from converters.tflite.graph import Editor, Kind, Type, name_of, quantization
from edge.quantization import asymmetric

# An encoder's feed-forward outputs are 10 to 40 times as uneven, its other matrices 2 to 3.
_UNEVEN = 4
# A matrix: the buffer of its weights, and how often the subgraph used it before.
Use = tuple[int, int]


class Range:
    """The extremes of a tensor in each of its columns; 0 is always within."""

    def __init__(self, width: int) -> None:
        self.low = np.zeros(width, np.float32)
        self.high = np.zeros(width, np.float32)

    def add(self, values: Array) -> None:
        """Widen the range to hold all values (rows, width)."""
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))

    def quantization(self) -> Any:
        """-128..127 spread evenly over the range of all columns."""
        scale, zero = asymmetric(float(self.low.min()), float(self.high.max()))
        return quantization(np.array([scale]), zero=zero - 128)

    @property
    def magnitudes(self) -> Array:
        """The largest absolute value of each column, float32 (width,)."""
        return np.maximum(np.maximum(-self.low, self.high), np.float32(1e-6))

    @property
    def uneven(self) -> bool:
        """Whether a few columns, larger than the others, would leave these hardly any steps."""
        return bool(np.sqrt(np.mean(self.magnitudes**2)) < self.magnitudes.max() / _UNEVEN)


Ranges = dict[Use, tuple[Range, Range]]


def matrices(program: Program, graph: Any) -> Iterator[tuple[Use, Any]]:
    """The operators of a subgraph that multiply by constants, and what tells them apart."""
    seen: Counter[int] = Counter()
    for operator in graph.operators:
        if program.kind(operator) == Kind.FULLY_CONNECTED:
            buffer = graph.tensors[operator.inputs[1]].buffer
            yield (buffer, seen[buffer]), operator
            seen[buffer] += 1


def measure(path: Path, samples: Sequence[Inputs]) -> Ranges:
    """The ranges of what goes into each matrix of a float file, and of what comes out.

    samples: int32 (1, n) without padding; each runs at the shortest length that holds it, and what
    the file computes for the padding is not counted.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    program = Program(path)
    # XNNPACK would hide what is between the operators that it joins.
    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    lengths = {_length(program, d): d for d in program.model.signatureDefs}
    ranges: Ranges = {}
    for sample in samples:
        count = next(iter(sample.values())).shape[1]
        length = next((n for n in sorted(lengths) if n >= count), max(lengths))
        number = lengths[length].subgraphIndex
        runner = interpreter.get_signature_runner(_key(lengths[length]))
        runner(**{name: _padded(values, length) for name, values in sample.items()})
        for use, operator in matrices(program, program.graphs[number]):
            both = (int(operator.inputs[0]), int(operator.outputs[0]))
            entering, leaving = (interpreter.get_tensor(tensor, number) for tensor in both)
            widths = (entering.shape[-1], leaving.shape[-1])
            pair = ranges.setdefault(use, (Range(widths[0]), Range(widths[1])))
            for found, values in zip(pair, (entering, leaving), strict=True):
                found.add(values.reshape(-1, values.shape[-1])[:count])
    return ranges


def quantize_inputs(
    editor: Editor, operator: Any, ranges: tuple[Range, Range], done: dict[int, int]
) -> None:
    """Let an operator with integer weights take and give integers too.

    done: what was quantised before in this subgraph. A bias must be a constant.
    """
    source, weights, *rest = (int(i) for i in operator.inputs)
    bias = next((i for i in rest if i >= 0), None)
    entering, leaving = ranges
    if source not in done:
        shape = editor.graph.tensors[source].shape
        steps = entering.quantization()
        done[source] = editor.emit(
            editor.before, "QUANTIZE", [source], shape, Type.INT8, quantization=steps
        )
    scale = editor.graph.tensors[done[source]].quantization.scale
    operator.inputs[0] = done[source]
    columns = leaving.magnitudes if leaving.uneven else None
    if columns is not None:
        operator.inputs[1] = weights = _scaled(editor, weights, columns)
    if bias is not None:
        weight_scales = editor.graph.tensors[weights].quantization.scale
        operator.inputs[2] = _bias(editor, bias, columns, scale * weight_scales)
    _widen(editor, operator, leaving, columns)


def _widen(editor: Editor, operator: Any, leaving: Range, columns: Array | None) -> None:
    """Give what comes out its range, and what reads it the floats that it expects."""
    output = int(operator.outputs[0])
    tensor = editor.graph.tensors[output]
    steps = leaving.quantization() if columns is None else quantization(np.array([1 / 127]))
    name = f"{name_of(tensor)}/integers"
    operator.outputs[0] = editor.tensor(name, tensor.shape, Type.INT8, quantization=steps)
    inner = [int(operator.outputs[0])]
    if columns is None:
        editor.after.append(editor.operator("DEQUANTIZE", inner, output, version=2))
        return
    wide = editor.emit(editor.after, "DEQUANTIZE", inner, tensor.shape, version=2)
    buffer = editor.program.store(columns)
    factors = editor.tensor(f"{name}/columns", columns.shape, Type.FLOAT32, buffer=buffer)
    editor.after.append(editor.operator("MUL", [wide, factors], output))


def _scaled(editor: Editor, number: int, columns: Array) -> int:
    """The same integer weights, giving each column divided by its magnitude."""
    tensor = editor.graph.tensors[number]
    steps = quantization(tensor.quantization.scale / columns)
    return editor.tensor(
        name_of(tensor), tensor.shape, tensor.type, buffer=tensor.buffer, quantization=steps
    )


def has_constant_bias(editor: Editor, operator: Any) -> bool:
    """Whether an operator adds what is stored, or nothing."""
    numbers = [int(i) for i in operator.inputs[2:] if i >= 0]
    return all(editor.program.values(editor.graph.tensors[i]) is not None for i in numbers)


def _bias(editor: Editor, number: int, columns: Array | None, scale: Array) -> int:
    """Biases count in steps of what they are added to."""
    values = editor.program.values(editor.graph.tensors[number])
    assert values is not None, "a bias that is computed cannot be quantised"
    values = values if columns is None else values / columns
    limits = np.iinfo(np.int32)
    steps = np.clip(np.rint(values.astype(np.float64) / scale), limits.min, limits.max)
    buffer = editor.program.store(steps.astype(np.int32))
    name = name_of(editor.graph.tensors[number])
    return editor.tensor(
        name, values.shape, Type.INT32, buffer=buffer, quantization=quantization(scale)
    )


def _length(program: Program, signature: Any) -> int:
    graph = program.graphs[signature.subgraphIndex]
    return int(graph.tensors[signature.inputs[0].tensorIndex].shape[1])


def _key(signature: Any) -> str:
    """A signature's name."""
    key = signature.signatureKey
    return key.decode() if isinstance(key, bytes) else str(key)


def _padded(values: Array, length: int) -> Array:
    return np.pad(values[:, :length], ((0, 0), (0, max(0, length - values.shape[1]))))
