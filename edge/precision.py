"""What a precision means, decided once for every format.

fp32  weights and arithmetic in 32-bit float.
fp16  weights in 16-bit float; arithmetic in 16 bits where the engine has it (Core ML), else 32.
int8  weights in 8-bit integers, symmetric, one scale per output channel; activations are
      quantised at run time where the engine does so (ONNX Runtime, LiteRT), else 16-bit float.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge.errors import unknown_name


class Precision(str, Enum):
    """The numeric width of an artifact."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def weight_bits(self) -> int:
        return {"fp32": 32, "fp16": 16, "int8": 8}[self.value]

    @property
    def gate(self) -> Gate:
        return _GATES[self]


@dataclass(frozen=True)
class Gate:
    """What an artifact of some precision must satisfy to be accepted.

    max_relative_error: max |a - b| over all outputs, divided by max |b|, b from the checkpoint.
    min_cosine: cosine between all outputs of all samples, as one vector, and the checkpoint's.
    min_label_agreement: share of samples whose top-1 answer equals the checkpoint's.
    """

    max_relative_error: float
    min_cosine: float
    min_label_agreement: float


# fp32 and fp16 are judged by their error, since nearly equal logits may swap ranks at any width;
# int8 by its answers, its error bound only catches a model that is broken outright.
_GATES = {
    Precision.FP32: Gate(max_relative_error=1e-4, min_cosine=0.99999, min_label_agreement=0.9),
    Precision.FP16: Gate(max_relative_error=1e-2, min_cosine=0.999, min_label_agreement=0.9),
    Precision.INT8: Gate(max_relative_error=0.5, min_cosine=0.95, min_label_agreement=0.9),
}


def parse_precision(name: str) -> Precision:
    """The precision called `name`; raises ConfigError with the nearest name otherwise."""
    try:
        # A member is accepted as well as its name.
        return Precision(name)
    except ValueError:
        raise unknown_name("precision", name, [p.value for p in Precision]) from None
