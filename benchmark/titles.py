"""Display names of engines, formats and baselines."""

from __future__ import annotations

from collections.abc import Sequence

from edge.formats import FORMATS

ENGINE_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "litert": "LiteRT",
    "tflite-runtime": "tflite-runtime",
    "coreml": "Core ML",
    "mil-interpreter": "MIL interpreter",
    "pytorch": "PyTorch",
    "onnxruntime-web": "ONNX Runtime Web",
    "onnxruntime-webgpu": "ONNX Runtime Web, WebGPU",
    "litert-web": "LiteRT.js",
}
_BASELINE_TITLES = {"bert-base": "BERT-base"}


def engine_title(name: str) -> str:
    """Return an engine's name as its authors write it."""
    return ENGINE_TITLES.get(name, name)


def format_title(name: str) -> str:
    """Return a format's name as its authors write it."""
    return FORMATS[name].title if name in FORMATS else name


def baseline_title(name: str) -> str:
    """Return a baseline's name, as its authors write it if it is a known one."""
    return _BASELINE_TITLES.get(name, name)


def join_names(names: Sequence[str]) -> str:
    """Return the names as one text: "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
