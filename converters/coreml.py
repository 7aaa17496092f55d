"""Core ML: an ML program with flexible lengths, then narrower copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import Plan, artifact_path
from converters.graph import MASKED, ExportView, exportable_masks, sample_inputs
from edge.errors import ConversionError
from edge.precision import Precision
from edge.signature import SHORTEST_LENGTH

_SMALL_ELEMENTS = 1024
# Operators that coremltools implements under another name than torch.export gives them.
_ALIASES = {"multiply": "mul", "__and__": "and", "alias": "noop"}


class CoremlConverter:
    """Every length from the shortest to the largest of the plan; batch is 1; iOS 17 and later."""

    format = "coreml"
    dynamic = True

    def write(self, view: ExportView, plan: Plan, folder: Path) -> dict[Precision, Path]:
        """Write model-<precision>.mlpackage folders; raises ConversionError."""
        try:
            exported = _export(view, plan)
            models: dict[Precision, Any] = {}
            files = {}
            for precision in plan.precisions:
                model = _WRITERS[precision](exported, plan, models)
                path = artifact_path(folder, self.format, precision)
                model.save(str(path))
                files[precision] = path
            return files
        except ConversionError:
            raise
        except Exception as error:  # coremltools raises bare RuntimeError, ValueError, KeyError
            reason = " ".join(str(error).split())[:300]
            raise ConversionError(f"Core ML conversion failed: {reason}") from error


def _export(view: ExportView, plan: Plan) -> Any:
    import torch

    inputs = sample_inputs(plan.inputs, plan.max_length)
    # A single length would be a constant, which torch.export refuses to call flexible.
    longest = max(plan.max_length, SHORTEST_LENGTH + 1)
    length = torch.export.Dim("sequence", min=SHORTEST_LENGTH, max=longest)
    with exportable_masks():
        program = torch.export.export(
            view, (), inputs, dynamic_shapes={name: {1: length} for name in inputs}, strict=False
        ).run_decompositions({})
    _clamp_constants(program)
    return program


def _clamp_constants(program: Any) -> None:
    """Constants below MASKED would be -inf in 16 bits, and then NaN."""
    for node in program.graph.nodes:
        node.args = tuple(
            MASKED if isinstance(arg, float) and arg < MASKED else arg for arg in node.args
        )


def _convert(exported: Any, plan: Plan, *, half: bool) -> Any:
    import coremltools as ct
    import numpy as np

    _register_aliases()
    length = ct.RangeDim(SHORTEST_LENGTH, plan.max_length, default=plan.max_length)
    shape = ct.Shape(shape=(1, length))
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    return ct.convert(
        exported,
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=precision,
        inputs=[ct.TensorType(name=name, shape=shape, dtype=np.int32) for name in plan.inputs],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in plan.task.outputs],
        skip_model_load=True,
    )


def _register_aliases() -> None:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    for alias, name in _ALIASES.items():
        if alias not in _TORCH_OPS_REGISTRY:
            _TORCH_OPS_REGISTRY.set_func_by_name(_TORCH_OPS_REGISTRY[name], alias)


def _fp32(exported: Any, plan: Plan, models: dict[Precision, Any]) -> Any:
    return _convert(exported, plan, half=False)


def _fp16(exported: Any, plan: Plan, models: dict[Precision, Any]) -> Any:
    if Precision.FP16 not in models:
        models[Precision.FP16] = _convert(exported, plan, half=True)
    return models[Precision.FP16]


def _int8(exported: Any, plan: Plan, models: dict[Precision, Any]) -> Any:
    """Symmetric int8 weights, one scale a channel, over 16-bit arithmetic."""
    from coremltools.optimize.coreml import (
        OpLinearQuantizerConfig,
        OptimizationConfig,
        linear_quantize_weights,
    )

    weights = OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=_SMALL_ELEMENTS)
    return linear_quantize_weights(
        _fp16(exported, plan, models), OptimizationConfig(global_config=weights)
    )


_WRITERS = {Precision.FP32: _fp32, Precision.FP16: _fp16, Precision.INT8: _int8}
