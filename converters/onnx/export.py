"""From a checkpoint to a graph of ONNX operators."""

from __future__ import annotations

import onnx_ir as ir

from converters.base import Plan
from converters.graph import ExportView, exportable_masks, sample_inputs
from converters.onnx import layout
from converters.onnx.constants import store_once
from converters.refusals import failure

_OPSET = 18


def export(view: ExportView, plan: Plan) -> ir.Model:
    """The model as standard operators in float32, each weight once; raises ConversionError."""
    import torch

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
        return _without_traces(program.model)
    except Exception as error:  # the exporter wraps whatever went wrong in classes of its own
        raise failure("ONNX export failed", error) from error


def portable(model: ir.Model) -> ir.Model:
    """A copy to derive artifacts of standard operators from."""
    copy = model.clone()
    layout.arrange(copy)
    store_once(copy.graph)
    return copy


def fuse(model: ir.Model) -> ir.Model:
    """A copy with ONNX Runtime's operators for attention and GELU."""
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    copy, _ = optimize_for_ort(model.clone())
    layout.arrange(copy)
    store_once(copy.graph)
    return copy


def _without_traces(model: ir.Model) -> ir.Model:
    """The exporter's notes dropped, but for the module names that tell which layer a node is of.

    The notes hold stack traces with the paths of the machine that converted.
    """
    for node in model.graph:
        kept = {k: v for k, v in node.metadata_props.items() if k.endswith("name_scopes")}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
    model.graph.metadata_props.clear()
    return model
