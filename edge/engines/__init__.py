"""Load and run any artifact."""

from __future__ import annotations

from edge.engines.base import Array, Availability, Engine, Session
from edge.errors import EngineError
from edge.registry import look_up

# name -> module and class, imported on use. For each format the first that is available here runs.
ENGINES = {
    "onnxruntime": "edge.engines.onnxruntime:OnnxRuntime",
    "onnx-reference": "edge.engines.onnx_reference:OnnxReference",
    "litert": "edge.engines.litert:LiteRT",
    "tflite-runtime": "edge.engines.tflite_runtime:TfliteRuntime",
    "coreml": "edge.engines.coreml:CoreML",
    "mil-interpreter": "edge.engines.coreml:MilInterpreter",
    "pytorch": "edge.engines.pytorch:PyTorch",
}
# Where an app's engine does not run, what may stand in for it.
_STAND_INS = {"coreml": ("coreml", "mil-interpreter")}


def get_engine(name: str) -> Engine:
    """The engine called `name`; raises ConfigError with the nearest name otherwise."""
    engine: Engine = look_up("engine", name, ENGINES)()
    return engine


def runtime_engine(*runtimes: str) -> Engine:
    """What runs, or stands for, the first of these runtimes that can be had here.

    Raises EngineError, saying what to install, when there is none.
    """
    remedies = []
    for name in (name for runtime in runtimes for name in _STAND_INS.get(runtime, (runtime,))):
        engine = get_engine(name)
        found = engine.availability()
        if found.available:
            return engine
        remedies.append(f"{name}: {found.reason} ({found.remedy})")
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
