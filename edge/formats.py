"""The file formats of artifacts, with the targets and precisions of each."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import unknown_name
from edge.precision import Precision

# Offsets in protobuf and FlatBuffers files are signed 32-bit integers.
TWO_GB = 2**31 - 1
_FLOAT = (Precision.FP32, Precision.FP16)
_INT8 = (Precision.INT8, Precision.INT8_STATIC, Precision.INT8_WEIGHTS)
_PALETTES = (Precision.PALETTE8, Precision.PALETTE6, Precision.PALETTE4, Precision.PALETTE2)


@dataclass(frozen=True)
class Target:
    """The runtime environment of the app that loads an artifact.

    runtimes: names of the engines that run it there, the main one first; an artifact is written
    only when it passes in the main one. precisions: those that compute correctly there.
    """

    name: str
    title: str
    runtimes: tuple[str, ...]
    precisions: tuple[Precision, ...]
    without_vnni: bool = False


@dataclass(frozen=True)
class Format:
    """One file format.

    suffix: of the artifact's file (Core ML's is a folder). targets: the default one first.
    largest_bytes: the size limit of a file, or None. fp32_first: every artifact is made from an
    fp32 file, which the limit applies to as well.
    """

    name: str
    title: str
    suffix: str
    targets: tuple[Target, ...]
    largest_bytes: int | None = None
    fp32_first: bool = False

    @property
    def default_target(self) -> Target:
        return self.targets[0]

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the engines of the default target, the main one first."""
        return self.default_target.runtimes

    def target(self, name: str) -> Target:
        """Return the target called `name`; raises ConfigError with the nearest name otherwise."""
        for target in self.targets:
            if target.name == name:
                return target
        raise unknown_name(f"{self.title} target", name, [t.name for t in self.targets])


def _ios_target(version: int, *more: Precision) -> Target:
    precisions = (*_FLOAT, Precision.AUTO, *more)
    return Target(f"ios{version}", f"iOS {version} and later", ("coreml",), precisions)


_COMPRESSED = (Precision.INT8, *_PALETTES)
FORMATS = {
    "onnx": Format(
        "onnx",
        "ONNX",
        ".onnx",
        (
            Target(
                "onnxruntime",
                "ONNX Runtime, with its fused operators",
                ("onnxruntime",),
                (*_FLOAT, *_INT8, Precision.INT4),
            ),
            # 16-bit sums of 8-bit products overflow there, so weights use only 7 bits.
            Target(
                "avx2",
                "ONNX Runtime on x86 without VNNI",
                ("onnxruntime",),
                (Precision.INT8, Precision.INT8_STATIC),
                without_vnni=True,
            ),
            Target(
                "portable",
                "any ONNX runtime, standard operators only",
                ("onnxruntime", "onnx-reference"),
                (*_FLOAT, *_INT8),
            ),
        ),
        largest_bytes=TWO_GB,
    ),
    "tflite": Format(
        "tflite",
        "TFLite",
        ".tflite",
        (
            Target(
                "litert",
                "LiteRT, as it is today",
                ("litert", "tflite-runtime"),
                (*_FLOAT, *_INT8, Precision.INT4),
            ),
            # It loads per-channel dynamic int8 too, but computes wrong outputs.
            Target(
                "legacy",
                "tflite-runtime 2.14 and apps of its time",
                ("tflite-runtime", "litert"),
                (*_FLOAT, Precision.INT8_WEIGHTS, Precision.INT8_STATIC),
            ),
        ),
        largest_bytes=TWO_GB,
        fp32_first=True,
    ),
    "coreml": Format(
        "coreml",
        "Core ML",
        ".mlpackage",
        (
            _ios_target(17, *_COMPRESSED),
            _ios_target(15),
            _ios_target(16, *_COMPRESSED),
            _ios_target(18, *_COMPRESSED, Precision.INT4),
        ),
    ),
}


def parse_format(name: str) -> Format:
    """Return the format called `name`; raises ConfigError with the nearest name otherwise."""
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


def parse_target(name: str) -> tuple[Format, Target]:
    """Return the target called `name` and its format; raises ConfigError with the nearest name."""
    for form in FORMATS.values():
        for target in form.targets:
            if target.name == name:
                return form, target
    known = [target.name for form in FORMATS.values() for target in form.targets]
    raise unknown_name("target", name, known)


def target_without_vnni(format_name: str, target: str, precision: str) -> str | None:
    """Return the target to use on x86 without VNNI, where an int8 artifact computes wrong results.

    None if the artifact is already made for it, or if its format has no such target.
    """
    form = FORMATS[format_name]
    if form.target(target).without_vnni:
        return None
    required = Precision(precision)
    capable = (t.name for t in form.targets if t.without_vnni and required in t.precisions)
    return next(capable, None)


def variant(format_name: str, target: str, precision: str) -> str:
    """Return the precision, with the target unless it is the default: "int8", "int8-avx2"."""
    default = FORMATS[format_name].default_target.name
    return precision if target == default else f"{precision}-{target}"
