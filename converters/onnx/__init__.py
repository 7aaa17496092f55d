"""ONNX: exported once, as a graph of standard operators; every artifact is derived from it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from converters.base import Plan, Request
from converters.graph import ExportView
from converters.refusals import failure
from edge.bundle import KeptWider


class OnnxConverter:
    """Batch and sequence are dynamic."""

    format = "onnx"

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> OnnxExport:
        """Export once; raises ConversionError."""
        return OnnxExport(view, plan)

    def dynamic(self, plan: Plan) -> bool:
        return True


class OnnxExport:
    """The full-precision graphs that artifacts are derived from."""

    def __init__(self, view: ExportView, plan: Plan) -> None:
        from converters.onnx.export import export
        from converters.weights import Owners

        self._plan = plan
        self._owners = Owners(view.model)
        self._exported = export(view, plan)

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; raises ConversionError."""
        from converters.onnx.artifact import write

        try:
            write(self._graph(request), request, self._owners, self._plan, path)
        except Exception as error:  # onnx and its rewriter raise a dozen unrelated classes
            raise failure(f"ONNX {request.precision.value} failed", error) from error
        return ()

    def _graph(self, request: Request) -> Any:
        return self._portable if request.target == "portable" else self._fused

    @cached_property
    def _portable(self) -> Any:
        from converters.onnx.export import portable

        return portable(self._exported)

    @cached_property
    def _fused(self) -> Any:
        from converters.onnx.export import fuse

        return fuse(self._exported)
