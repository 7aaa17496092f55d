"""TFLite for LiteRT: one signature a length, all sharing the weights, then narrower copies."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from converters.base import Plan, artifact_path
from converters.graph import ExportView, exportable_masks, sample_inputs
from edge.errors import ConversionError
from edge.precision import Precision


class TfliteConverter:
    """Lengths are fixed; batch is 1."""

    format = "tflite"
    dynamic = False

    def write(self, view: ExportView, plan: Plan, folder: Path) -> dict[Precision, Path]:
        """Write model-<precision>.tflite files; raises ConversionError."""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            full = Path(scratch) / "full.tflite"
            _export(view, plan, full)
            files = {}
            for precision in plan.precisions:
                path = artifact_path(folder, self.format, precision)
                if precision is Precision.FP32:
                    path.write_bytes(full.read_bytes())
                else:
                    _quantize(full, path, _RECIPES[precision]())
                files[precision] = path
        return files


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
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"TFLite conversion failed: {reason}") from error


def _quantize(full: Path, path: Path, recipe: Any) -> None:
    from ai_edge_quantizer import quantizer

    try:
        work = quantizer.Quantizer(str(full))
        work.load_quantization_recipe(recipe)
        work.quantize().export_model(str(path))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"TFLite quantisation failed: {reason}") from error


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
