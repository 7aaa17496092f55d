"""Engines that load and run artifacts."""

from __future__ import annotations

from edge.engines.base import Array, Availability, Engine, Session
from edge.errors import EngineError
from edge.registry import look_up

# Name -> module and class, imported on use. The first available engine of a format is the default.
ENGINES = {
    "onnxruntime": "edge.engines.onnxruntime:OnnxRuntime",
    "onnx-reference": "edge.engines.onnx_reference:OnnxReference",
    "litert": "edge.engines.litert:LiteRT",
    "tflite-runtime": "edge.engines.tflite_runtime:TfliteRuntime",
    "coreml": "edge.engines.coreml:CoreML",
    "mil-interpreter": "edge.engines.coreml:MilInterpreter",
    "pytorch": "edge.engines.pytorch:PyTorch",
}
# Engine of an app -> engines that can run its artifacts here.
_SUBSTITUTES = {"coreml": ("coreml", "mil-interpreter")}


def get_engine(name: str) -> Engine:
    """Return the engine called `name`; raises ConfigError with the nearest name otherwise."""
    engine: Engine = look_up("engine", name, ENGINES)()
    return engine


def runtime_engine(*runtimes: str) -> Engine:
    """Return the first available engine for these runtimes, or for their substitutes.

    Raises EngineError, naming the packages to install, when there is none.
    """
    remedies = []
    for name in (name for runtime in runtimes for name in _SUBSTITUTES.get(runtime, (runtime,))):
        engine = get_engine(name)
        availability = engine.availability()
        if availability.available:
            return engine
        remedies.append(f"{name}: {availability.reason} ({availability.remedy})")
    raise EngineError(f"nothing here can stand for {runtimes[0]}: {'; '.join(remedies)}")


__all__ = [
    "ENGINES",
    "Array",
    "Availability",
    "Engine",
    "Session",
    "get_engine",
    "runtime_engine",
]
