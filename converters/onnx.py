"""ONNX for ONNX Runtime: one exported graph with fused attention, then its narrower copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import Plan, artifact_path
from converters.graph import ExportView, exportable_masks, sample_inputs
from edge.errors import ConversionError
from edge.precision import Precision

_OPSET = 18
# Smaller tensors (biases, layer norms) cost nothing and keep their precision.
_SMALL_ELEMENTS = 1024


class OnnxConverter:
    """Batch and sequence are dynamic."""

    format = "onnx"
    dynamic = True

    def write(self, view: ExportView, plan: Plan, folder: Path) -> dict[Precision, Path]:
        """Write model-<precision>.onnx files; raises ConversionError."""
        model = _export(view, plan)
        files = {}
        for precision in plan.precisions:
            path = artifact_path(folder, self.format, precision)
            _WRITERS[precision](model, path)
            files[precision] = path
        return files


def _export(view: ExportView, plan: Plan) -> Any:
    """The fused graph as an ONNX ModelProto in float32."""
    import onnx_ir
    import torch
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    inputs = sample_inputs(plan.inputs, plan.max_length, batch=2)
    try:
        with exportable_masks():
            program = torch.onnx.export(
                view,
                kwargs=inputs,
                dynamo=True,
                opset_version=_OPSET,
                output_names=list(plan.task.outputs),
                dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in inputs},
                verbose=False,
            )
        assert program is not None
        fused = optimize_for_ort(program.model)
        model = fused[0] if isinstance(fused, tuple) else fused
        return _without_traces(onnx_ir.to_proto(model))
    except Exception as error:  # the exporter wraps whatever went wrong in classes of its own
        raise ConversionError(f"ONNX export failed: {_line(error)}") from error


def _without_traces(model: Any) -> Any:
    """The exporter's notes dropped, but for the module names that tell which layer a node is of.

    The notes hold stack traces with the paths of the machine that converted.
    """
    for node in model.graph.node:
        kept = [note for note in node.metadata_props if note.key.endswith("name_scopes")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    del model.graph.metadata_props[:]
    return model


def _write_fp32(model: Any, path: Path) -> None:
    import onnx

    onnx.save(model, str(path))


def _write_fp16(model: Any, path: Path) -> None:
    """Weights in 16 bits behind casts, which ONNX Runtime folds away when it loads the file.

    Arithmetic stays in 32 bits: the CPU kernels of most phones and servers have nothing narrower.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    graph = narrow.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or _elements(tensor) < _SMALL_ELEMENTS:
            continue
        name = tensor.name
        half = numpy_helper.from_array(
            numpy_helper.to_array(tensor).astype(np.float16), f"{name}_fp16"
        )
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    onnx.save(narrow, str(path))


def _write_int8(model: Any, path: Path) -> None:
    """Dynamic quantisation: int8 weights a channel, activations quantised at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Shapes inferred before fusion no longer fit, and the quantiser refuses such a graph.
    del copy.graph.value_info[:]
    try:
        quantize_dynamic(
            copy,
            str(path),
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    except Exception as error:
        raise ConversionError(f"ONNX int8 quantisation failed: {_line(error)}") from error


def _elements(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


_WRITERS = {
    Precision.FP32: _write_fp32,
    Precision.FP16: _write_fp16,
    Precision.INT8: _write_int8,
}
