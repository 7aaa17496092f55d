"""One artifact written from an exported graph."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from converters.base import Plan, Request
from converters.onnx.constants import find_weights
from converters.onnx.edits import clean
from converters.onnx.narrow import Narrowing
from converters.onnx.ranges import measure
from converters.weights import Owners
from edge.errors import ConversionError
from edge.precision import Precision

# 255 * 64, twice, is below 2**15: what x86 without VNNI adds up in 16 bits.
_LIMITS = {"avx2": 64}


def write(model: ir.Model, request: Request, owners: Owners, plan: Plan, path: Path) -> None:
    """Narrow a copy of a graph and save it; raises ConversionError."""
    copy = model.clone()
    portable = request.target == "portable"
    wanted = [
        (weight, request.width(weight.owner or "")) for weight in find_weights(copy.graph, owners)
    ]
    static = [
        str(node.inputs[0].name)
        for weight, precision in wanted
        for node in weight.matmuls
        if precision is Precision.INT8_STATIC
    ]
    if static and not plan.calibration:
        raise ConversionError("int8-static needs calibration texts: add --calibration FILE")
    narrowing = Narrowing(
        copy.graph,
        fused=not portable,
        limit=_LIMITS.get(request.target),
        ranges=measure(model, static, plan.calibration, path.parent) if static else None,
        tokenwise=plan.task.compares_vectors,
    )
    for weight, precision in wanted:
        narrowing.apply(weight, precision)
    clean(copy)
    if portable:
        _require_standard(copy)
    ir.save(copy, path)


def _require_standard(model: ir.Model) -> None:
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in model.graph if node.domain})
    if foreign:
        raise ConversionError(f"not portable: {', '.join(foreign)} are not standard operators")
