"""TFLite for LiteRT: one signature a length, all sharing the weights, then narrower copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import Plan, Request, failure
from converters.graph import ExportView, exportable_masks, sample_inputs
from edge.bundle import KeptWider
from edge.precision import Precision


class TfliteConverter:
    """Lengths are fixed; batch is 1."""

    format = "tflite"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> TfliteExport:
        """Export once, all lengths; raises ConversionError."""
        full = scratch / "full.tflite"
        _export(view, plan, full)
        return TfliteExport(full)

    def dynamic(self, plan: Plan) -> bool:
        return False


class TfliteExport:
    """The full-precision file that artifacts are derived from."""

    def __init__(self, full: Path) -> None:
        self._full = full

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        if request.precision is Precision.FP32:
            path.write_bytes(self._full.read_bytes())
        else:
            _quantize(self._full, path, _RECIPES[request.precision]())
        return ()


def _export(view: ExportView, plan: Plan, path: Path) -> None:
    import litert_torch

    try:
        with exportable_masks():
            program: Any = litert_torch
            for length in plan.lengths:
                inputs = sample_inputs(plan.inputs, length)
                program = program.signature(f"length_{length}", view, sample_kwargs=inputs)
            program.convert().export(str(path))
    except Exception as error:  # MLIR and torch.export raise unrelated classes
        raise failure("TFLite conversion failed", error) from error


def _quantize(full: Path, path: Path, recipe: Any) -> None:
    from ai_edge_quantizer import quantizer

    try:
        work = quantizer.Quantizer(str(full))
        work.load_quantization_recipe(recipe)
        work.quantize().export_model(str(path))
    except Exception as error:
        raise failure("TFLite quantisation failed", error) from error


def _half_weights() -> Any:
    """Weights in 16-bit floats, widened before use."""
    weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
    return [
        {
            "regex": ".*",
            "operation": "*",
            "algorithm_key": "float_casting",
            "op_config": {
                "weight_tensor_config": weights,
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
            },
        }
    ]


def _dynamic_int8() -> Any:
    """int8 weights a channel, activations quantised at run time."""
    from ai_edge_quantizer import recipe

    return recipe.dynamic_wi8_afp32()


_RECIPES = {Precision.FP16: _half_weights, Precision.INT8: _dynamic_int8}
