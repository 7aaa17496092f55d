"""The ranges of activations, measured on texts like those the app will see."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from converters.base import Inputs
from converters.onnx.edits import clean
from edge.engines.onnxruntime import load

# Least and largest value of an activation, by its name.
Ranges = dict[str, tuple[float, float]]


def measure(
    model: ir.Model, names: Sequence[str], samples: Sequence[Inputs], folder: Path
) -> Ranges:
    """The range of each named activation of a graph, over all samples.

    folder: where a temporary file of the model's size may be. Cutting off outliers was tried at
    1e-5 to 3e-3 of the values: no gain on SST-2, and a loss from 5e-4 on.
    """
    onnxruntime = load()
    copy = model.clone()
    found = {str(value.name): value for node in copy.graph for value in node.outputs}
    wanted = list(dict.fromkeys(names))
    copy.graph.outputs.clear()
    for name in wanted:
        found[name].type, found[name].shape = ir.TensorType(ir.DataType.FLOAT), None
        copy.graph.outputs.append(found[name])
    clean(copy)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "activations.onnx"
        # In files of their own, weights may be larger than the 2 GB of one.
        ir.save(copy, path, external_data="activations.data")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    ranges = dict.fromkeys(wanted, (0.0, 0.0))
    for sample in samples:
        for name, values in zip(wanted, session.run(wanted, sample), strict=True):
            low, high = ranges[name]
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges
