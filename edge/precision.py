"""The precisions of artifacts, with one meaning for all formats.

fp32          weights and arithmetic in 32-bit float.
fp16          weights in 16-bit float; arithmetic in 16 bits where the engine has it (Core ML),
              else 32.
int8          weights in 8-bit integers, symmetric within -127..127, one scale per output channel
              (per row of an embedding); activations are quantised at run time where the engine
              does so (ONNX Runtime: the whole tensor, or each token where vectors are compared;
              LiteRT: each token), else 16-bit float (Core ML).
int8-static   the weights of int8; activations in 8-bit integers whose ranges were measured on
              calibration data.
int8-weights  the weights of int8, arithmetic in 32-bit float.
int4          weights in 4-bit integers, symmetric within -7..7, one scale per block of
              INT4_BLOCK inputs of an output channel (the whole channel when it does not divide).
palette8..2   weights are indices of 8, 6, 4 or 2 bits into a table of values for each tensor.
auto          fp16, but for the operators whose values leave its range: those stay in 32 bits.

The bits are those of matrices and embedding tables; biases and norms keep their width.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from edge.errors import unknown_name

# With 32-bit scales a block of 128 costs a sixteenth of its weights, less than any smaller one.
INT4_BLOCK = 128
# Tensors with fewer values (biases, norms) cost nothing and keep their width.
SMALL_ELEMENTS = 1024


class Precision(str, Enum):
    """The numeric width of an artifact."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT8_STATIC = "int8-static"
    INT8_WEIGHTS = "int8-weights"
    INT4 = "int4"
    PALETTE8 = "palette8"
    PALETTE6 = "palette6"
    PALETTE4 = "palette4"
    PALETTE2 = "palette2"
    AUTO = "auto"

    @property
    def weight_bits(self) -> int:
        return _BITS[self]

    @property
    def gate(self) -> Gate:
        return _GATES.get(self.weight_bits, _GATES[4])

    @property
    def needs_calibration(self) -> bool:
        return self is Precision.INT8_STATIC

    def nearest(self, possible: Collection[Precision]) -> Precision:
        """Return the precision of `possible` that is closest to this one."""
        return next((p for p in (self, *_NEAREST.get(self, ())) if p in possible), Precision.FP32)


@dataclass(frozen=True)
class Gate:
    """Limits that an artifact of a precision must satisfy to be accepted.

    max_relative_error: max |a - b| over all outputs, divided by max |b|, b from the checkpoint.
    min_cosine: cosine between all outputs of all samples, as one vector, and the checkpoint's.
    min_label_agreement: share of samples whose top-1 answer equals the checkpoint's.
    """

    max_relative_error: float
    min_cosine: float
    min_label_agreement: float


_BITS = {
    Precision.FP32: 32,
    Precision.FP16: 16,
    Precision.INT8: 8,
    Precision.INT8_STATIC: 8,
    Precision.INT8_WEIGHTS: 8,
    Precision.INT4: 4,
    Precision.PALETTE8: 8,
    Precision.PALETTE6: 6,
    Precision.PALETTE4: 4,
    Precision.PALETTE2: 2,
    Precision.AUTO: 16,
}
# fp32 and fp16 are judged by their error, since nearly equal logits may swap ranks at any width;
# narrower ones by their answers, their error bound only catches a model that is broken outright.
_GATES = {
    32: Gate(max_relative_error=1e-4, min_cosine=0.99999, min_label_agreement=0.9),
    16: Gate(max_relative_error=1e-2, min_cosine=0.999, min_label_agreement=0.9),
    8: Gate(max_relative_error=0.5, min_cosine=0.95, min_label_agreement=0.9),
    4: Gate(max_relative_error=1.0, min_cosine=0.8, min_label_agreement=0.8),
}
_WIDER = (Precision.INT8, Precision.INT8_WEIGHTS, Precision.FP16)
_NEAREST = {
    Precision.AUTO: (Precision.FP16,),
    Precision.INT8: (Precision.INT8_WEIGHTS, Precision.FP16),
    Precision.INT8_STATIC: _WIDER,
    Precision.INT8_WEIGHTS: _WIDER,
    Precision.INT4: (Precision.PALETTE4, *_WIDER),
    Precision.PALETTE8: _WIDER,
    Precision.PALETTE6: (Precision.PALETTE8, *_WIDER),
    Precision.PALETTE4: (Precision.INT4, *_WIDER),
    Precision.PALETTE2: (Precision.INT4, *_WIDER),
}


def parse_precision(name: str) -> Precision:
    """Return the precision called `name`; raises ConfigError with the nearest name otherwise."""
    try:
        # A member is accepted as well as its name.
        return Precision(name)
    except ValueError:
        raise unknown_name("precision", name, [p.value for p in Precision]) from None
