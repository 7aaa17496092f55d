"""Load and run any artifact."""

from __future__ import annotations

import importlib

from edge.engines.base import Array, Availability, Engine, Session
from edge.errors import EngineError, unknown_name

# name -> module and class, imported on use. For each format the first that is available here runs.
ENGINES = {
    "onnxruntime": "edge.engines.onnxruntime:OnnxRuntime",
    "litert": "edge.engines.litert:LiteRT",
    "tflite-runtime": "edge.engines.tflite_runtime:TfliteRuntime",
    "coreml": "edge.engines.coreml:CoreML",
    "mil-interpreter": "edge.engines.coreml:MilInterpreter",
    "pytorch": "edge.engines.pytorch:PyTorch",
}
_BY_FORMAT = {
    "onnx": ("onnxruntime",),
    "tflite": ("litert", "tflite-runtime"),
    "coreml": ("coreml", "mil-interpreter"),
    "checkpoint": ("pytorch",),
}


def get_engine(name: str) -> Engine:
    """The engine called `name`; raises ConfigError with the nearest name otherwise."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine


def main_engine(format_name: str) -> Engine:
    """The first engine available here for a format; raises EngineError, saying what to install."""
    remedies = []
    for name in _BY_FORMAT[format_name]:
        engine = get_engine(name)
        found = engine.availability()
        if found.available:
            return engine
        remedies.append(f"{name}: {found.reason} ({found.remedy})")
    raise EngineError(f"nothing here can run {format_name}: {'; '.join(remedies)}")


__all__ = [
    "ENGINES",
    "Array",
    "Availability",
    "Engine",
    "Session",
    "get_engine",
    "main_engine",
]
