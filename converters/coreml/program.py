"""From a PyTorch module to an ML program in 32-bit floats, in 16 bits, or in both."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from converters.base import Plan
from converters.graph import MASKED, ExportView, exportable_masks, sample_inputs
from converters.refusals import layer_of
from edge.engines.mil.half_precision import FOLLOWERS
from edge.errors import ConversionError
from edge.signature import SHORTEST_LENGTH

# Operators that coremltools implements under another name than torch.export gives them.
_ALIASES = {"multiply": "mul", "__and__": "and", "alias": "noop", "edge::lstm": "lstm"}


def export(view: ExportView, plan: Plan) -> Any:
    """The module as torch.export sees it, for every length up to the plan's largest.

    Raises ConversionError for an operator that Core ML lacks, and whatever torch.export raises.
    """
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
    _register_aliases()
    _check_operators(program)
    return program


def save_full(program: Any, plan: Plan, target: str, path: Path) -> None:
    """Convert an exported program to an ML program in 32-bit floats."""
    import coremltools as ct

    _convert(program, plan, target, path, ct.precision.FLOAT32)


def save_half(
    program: Any, plan: Plan, target: str, path: Path, *, wide: Collection[str] = ()
) -> None:
    """The same in 16-bit floats, but for the operators that `save_full` calls by these names."""
    import coremltools as ct

    def is_narrow(operation: Any) -> bool:
        if operation.op_type in FOLLOWERS:
            # What a narrow operator gave has been cast back to 32 bits by now.
            return operation.x.op is not None and operation.x.op.op_type == "cast"
        return operation.name not in wide

    chosen = ct.transform.FP16ComputePrecision(op_selector=is_narrow)
    _convert(program, plan, target, path, chosen if wide else ct.precision.FLOAT16)


def place(package: Path, path: Path) -> None:
    """Put a finished package at `path`, sharing its files where the file system can."""
    shutil.copytree(package, path, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _convert(program: Any, plan: Plan, target: str, path: Path, precision: Any) -> None:
    import coremltools as ct
    import numpy as np

    shape = _shape(plan)
    ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target.replace("ios", "iOS")),
        inputs=[ct.TensorType(name=name, shape=shape, dtype=np.int32) for name in plan.inputs],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in plan.task.outputs],
        compute_precision=precision,
        skip_model_load=True,
        package_dir=str(path),
    )
    # Operators and their values refer to each other: without this, two programs are held at once.
    gc.collect()


def _shape(plan: Plan) -> Any:
    import coremltools as ct

    if plan.flexible and plan.max_length > SHORTEST_LENGTH:
        length = ct.RangeDim(SHORTEST_LENGTH, plan.max_length, default=plan.max_length)
        return ct.Shape(shape=(1, length))
    shapes = [(1, length) for length in plan.lengths]
    if plan.flexible or len(shapes) == 1:
        return ct.Shape(shape=shapes[-1])
    return ct.EnumeratedShapes(shapes=shapes, default=shapes[-1])


def _clamp_constants(program: Any) -> None:
    """Constants below MASKED would be -inf in 16 bits, and then NaN."""
    for node in program.graph.nodes:
        node.args = tuple(
            MASKED if isinstance(arg, float) and arg < MASKED else arg for arg in node.args
        )


def _register_aliases() -> None:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    known = _TORCH_OPS_REGISTRY.name_to_func_mapping
    for alias, name in _ALIASES.items():
        known.setdefault(alias, known[name])


def _check_operators(program: Any) -> None:
    """Name the first operator that coremltools has no translation for, and its layer."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        named = getattr(node.target, "name", None)
        kind = named() if callable(named) else getattr(node.target, "__name__", str(node.target))
        if sanitize_op_kind(kind) not in _TORCH_OPS_REGISTRY.name_to_func_mapping:
            raise ConversionError(
                f"Core ML has no operator {str(kind).replace('::', '.')}, used in {layer_of(node)}"
            )
