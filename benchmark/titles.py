"""Names and figures as people read them."""

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
    """An engine's name as its authors write it."""
    return ENGINE_TITLES.get(name, name)


def format_title(name: str) -> str:
    """A format's name as its authors write it."""
    return FORMATS[name].title if name in FORMATS else name


def baseline_title(name: str) -> str:
    """A baseline's name, as its authors write it where it is a known one."""
    return _BASELINE_TITLES.get(name, name)


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
