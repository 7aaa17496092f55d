"""Core ML: an ML program with flexible lengths, then narrower copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import Plan, Request, failure
from converters.graph import MASKED, ExportView, exportable_masks, sample_inputs
from edge.bundle import KeptWider
from edge.precision import SMALL_ELEMENTS, Precision
from edge.signature import SHORTEST_LENGTH

# Operators that coremltools implements under another name than torch.export gives them.
_ALIASES = {"multiply": "mul", "__and__": "and", "alias": "noop"}


class CoremlConverter:
    """Batch is 1; every length up to the largest of the plan, or just its lengths."""

    format = "coreml"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> CoremlExport:
        """Export once; raises ConversionError."""
        try:
            return CoremlExport(_export(view, plan), plan)
        except Exception as error:  # torch.export raises unrelated classes
            raise failure("Core ML export failed", error) from error

    def dynamic(self, plan: Plan) -> bool:
        return plan.flexible


class CoremlExport:
    """The exported program that artifacts are derived from."""

    def __init__(self, program: Any, plan: Plan) -> None:
        self._program = program
        self._plan = plan
        self._models: dict[Precision, Any] = {}

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        try:
            model = _WRITERS[request.precision](self._program, self._plan, self._models)
            model.save(str(path))
        except Exception as error:  # coremltools raises bare RuntimeError, ValueError, KeyError
            raise failure("Core ML conversion failed", error) from error
        return ()


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

    weights = OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=SMALL_ELEMENTS)
    return linear_quantize_weights(
        _fp16(exported, plan, models), OptimizationConfig(global_config=weights)
    )


_WRITERS = {Precision.FP32: _fp32, Precision.FP16: _fp16, Precision.INT8: _int8}
