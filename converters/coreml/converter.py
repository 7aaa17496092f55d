"""A checkpoint as Core ML packages: each precision is made from the one before, on disk."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.base import Plan, Request
from converters.coreml.blobs import wide_weights
from converters.coreml.compress import compress
from converters.coreml.mixed import samples_for, save_mixed
from converters.coreml.program import export, place, save_full, save_half
from converters.graph import ExportView
from converters.refusals import failure
from converters.weights import Owners
from edge.bundle import KeptWider
from edge.precision import Precision


class CoremlConverter:
    """Batch is 1; every length up to the largest of the plan, or just its lengths."""

    format = "coreml"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> CoremlExport:
        """Export once; raises ConversionError, for an operator Core ML lacks with its layer."""
        try:
            return CoremlExport(export(view, plan), plan, view, scratch)
        except Exception as error:  # torch.export raises unrelated classes
            raise failure("Core ML export failed", error) from error

    def dynamic(self, plan: Plan) -> bool:
        return plan.flexible


class CoremlExport:
    """The exported program that artifacts are derived from.

    Packages wait in `scratch`, not in memory: one in 32 and one in 16 bits for each target.
    """

    def __init__(self, program: Any, plan: Plan, view: ExportView, scratch: Path) -> None:
        self._program = program
        self._plan = plan
        self._view = view
        self._scratch = scratch

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        shutil.rmtree(path, ignore_errors=True)
        try:
            return self._write(request, path)
        except Exception as error:  # coremltools raises bare RuntimeError, ValueError, KeyError
            raise failure("Core ML conversion failed", error) from error

    def _write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        full = self._full(request.target)
        if request.precision is Precision.FP32:
            place(full, path)
            return ()
        half = self._half(request.target)
        if request.precision is Precision.FP16:
            place(half, path)
            return wide_weights(path)
        if request.precision is Precision.AUTO:
            samples = samples_for(self._plan, self._view)
            save = functools.partial(save_half, self._program, self._plan, request.target)
            return save_mixed(full, half, path, self._plan, samples, save)
        compress(full, half, path, request, self._owners)
        return ()

    @functools.cached_property
    def _owners(self) -> Owners:
        return Owners(self._view.model)

    def _full(self, target: str) -> Path:
        return self._kept(
            f"fp32-{target}", lambda path: save_full(self._program, self._plan, target, path)
        )

    def _half(self, target: str) -> Path:
        return self._kept(
            f"fp16-{target}", lambda path: save_half(self._program, self._plan, target, path)
        )

    def _kept(self, name: str, save: Callable[[Path], None]) -> Path:
        path = self._scratch / f"{name}.mlpackage"
        if not path.exists():
            # One that could not be finished must not be taken for it the next time.
            unfinished = self._scratch / f"{name}-unfinished.mlpackage"
            shutil.rmtree(unfinished, ignore_errors=True)
            save(unfinished)
            unfinished.rename(path)
        return path
