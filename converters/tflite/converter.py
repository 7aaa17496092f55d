"""TFLite files: one signature a length, all sharing the weights, and narrower copies of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from converters.base import Plan, Request
from converters.graph import ExportView, exportable_masks, sample_inputs
from converters.refusals import failure
from converters.tflite.flatbuffer import Program
from converters.tflite.graph import name_of
from converters.tflite.narrow import Narrower
from converters.tflite.norms import restore_norms
from converters.tflite.simplify import simplify
from converters.tflite.static import Ranges, measure
from converters.tflite.tables import Tables, share_tables
from converters.weights import Owners
from edge.bundle import KeptWider
from edge.errors import ConversionError
from edge.inspection.layers import readable
from edge.precision import SMALL_ELEMENTS, Precision


class TfliteConverter:
    """Lengths are fixed; batch is 1."""

    format = "tflite"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> TfliteExport:
        """Export once, all lengths; raises ConversionError."""
        raw, full = scratch / "raw.tflite", scratch / "full.tflite"
        _export(view, plan, raw)
        tables = Tables(view.model)
        program = Program(raw)
        share_tables(program, tables)
        owners = _owners(program, Owners(view.model), tables)
        restore_norms(program, view.model, owners)
        simplify(program, owners)
        _shorten_names(program, owners)
        numbers = program.write(full)
        raw.unlink()
        kept = {numbers[old]: name for old, name in owners.items() if old in numbers}
        return TfliteExport(full, kept, plan)

    def dynamic(self, plan: Plan) -> bool:
        return False


class TfliteExport:
    """The full-precision file that artifacts are derived from.

    owners: number of a buffer in it -> module of the checkpoint.
    """

    def __init__(self, full: Path, owners: dict[int, str], plan: Plan) -> None:
        self._full = full
        self._owners = owners
        self._plan = plan
        self._measured: Ranges | None = None

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        if request.precision is Precision.FP32:
            shutil.copyfile(self._full, path)
            return ()
        try:
            ranges = self._ranges() if request.precision is Precision.INT8_STATIC else None
            program = Program(self._full)
            kept = Narrower(program, request, self._owners, ranges).run()
            program.write(path)
        except (ValueError, RuntimeError) as error:
            raise failure("TFLite quantisation failed", error) from error
        return kept

    def _ranges(self) -> Ranges:
        """Measured when first asked for."""
        if not self._plan.calibration:
            raise ConversionError(
                "int8-static needs texts like those the app will see: add --calibration FILE"
            )
        if self._measured is None:
            self._measured = measure(self._full, self._plan.calibration)
        return self._measured


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


def _owners(program: Program, exact: Owners, tables: Tables) -> dict[int, str]:
    """The module that each constant large enough to be narrowed came from, by its buffer."""
    found: dict[int, str] = {}
    for _, _, _, tensor in program.constants():
        values = program.values(tensor)
        if tensor.buffer in found or values is None or values.dtype != np.float32:
            continue
        if values.size < SMALL_ELEMENTS:
            continue
        owner = exact.of(values)
        if owner is None and values.ndim == 2:
            part = tables.find(values)
            owner = part.module if part else None
        if owner is not None:
            found[tensor.buffer] = owner
    return found


def _shorten_names(program: Program, owners: dict[int, str]) -> None:
    """Names of every class that a tensor passed through are longer than many a tensor."""
    for graph in program.graphs:
        for tensor in graph.tensors:
            owner = owners.get(tensor.buffer)
            tensor.name = f"{owner}.weight" if owner else readable(name_of(tensor))
