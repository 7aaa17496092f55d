"""The file formats an artifact can have, and the engines that may run each."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import unknown_name


@dataclass(frozen=True)
class Format:
    """One file format.

    suffix: of the artifact's file (Core ML's is a folder).
    runtimes: names of the engines an app would run it with, the main one first.
    """

    name: str
    title: str
    suffix: str
    runtimes: tuple[str, ...]


FORMATS = {
    "onnx": Format("onnx", "ONNX", ".onnx", ("onnxruntime",)),
    "tflite": Format("tflite", "TFLite", ".tflite", ("litert", "tflite-runtime")),
    "coreml": Format("coreml", "Core ML", ".mlpackage", ("coreml",)),
}


def parse_format(name: str) -> Format:
    """The format called `name`; raises ConfigError with the nearest name otherwise."""
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]
