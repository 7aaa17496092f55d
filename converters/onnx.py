"""ONNX for ONNX Runtime: one exported graph with fused attention, then its narrower copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import Plan, Request, failure
from converters.graph import ExportView, exportable_masks, sample_inputs
from edge.bundle import KeptWider
from edge.precision import SMALL_ELEMENTS, Precision

_OPSET = 18


class OnnxConverter:
    """Batch and sequence are dynamic."""

    format = "onnx"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> OnnxExport:
        """Export once; raises ConversionError."""
        return OnnxExport(_export(view, plan))

    def dynamic(self, plan: Plan) -> bool:
        return True


class OnnxExport:
    """The full-precision graph that artifacts are derived from."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        _WRITERS[request.precision](self._model, path)
        return ()


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
        raise failure("ONNX export failed", error) from error


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
        if tensor.data_type != TensorProto.FLOAT or _elements(tensor) < SMALL_ELEMENTS:
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
        raise failure("ONNX quantisation failed", error) from error


def _elements(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


_WRITERS = {
    Precision.FP32: _write_fp32,
    Precision.FP16: _write_fp16,
    Precision.INT8: _write_int8,
}
