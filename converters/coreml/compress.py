"""Packages with narrow weights, written from one in 16-bit floats without running coremltools.

Only constants change: a weight becomes the operator that rebuilds it, everything else is copied.
Before iOS 18 the parts of such an operator are its attributes, since then its inputs.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.base import Request
from converters.coreml.blobs import Blobs, Constants, operations
from converters.coreml.quantize import int4, int8, palette
from converters.weights import Owners
from edge.engines.mil.package import ELEMENT_TYPES, read_model
from edge.precision import SMALL_ELEMENTS, Precision

Array = npt.NDArray[Any]

_IOS18 = 9
# Some operators of older systems take weights in 32 bits only.
_FLOATS = {"fp16": np.float16, "fp32": np.float32}
# Where operators take weights; `matmul` has its own rule.
_WEIGHTS = frozenset(
    {
        ("conv", "weight"),
        ("gather", "x"),
        ("linear", "weight"),
        *(("lstm", f"weight_{part}") for part in ("ih", "hh", "ih_back", "hh_back")),
    }
)


def compress(full: Path, half: Path, path: Path, request: Request, owners: Owners) -> None:
    """Write `path`, the package `half` with the weights that `request` asks for.

    full: the same program in 32-bit floats, whose weights are what is quantised.
    """
    model, folder = read_model(half)
    shutil.copytree(half, path, ignore=shutil.ignore_patterns("weight.bin"))
    new_model = _Narrowed(model, Constants(half), Constants(full), request, owners)
    new_model.write(path / folder.relative_to(half))


@dataclass(frozen=True)
class _Weight:
    """A constant to narrow: its float32 values, the axis of its outputs, and its float type."""

    values: Array
    axis: int
    width: Precision
    kind: str


class _Narrowed:
    """A model description whose weights are replaced while its new weight file is written."""

    def __init__(
        self, model: Any, half: Constants, full: Constants, request: Request, owners: Owners
    ) -> None:
        self._model = model
        self._half = half
        self._full = full
        self._request = request
        self._owners = owners
        self._inputs_since = model.specificationVersion >= _IOS18
        self._uses: dict[str, list[tuple[Any, str]]] = defaultdict(list)

    def write(self, folder: Path) -> None:
        """Save the model description and its weight file to `folder`."""
        everything = list(operations(self._model))
        for operation in everything:
            for parameter, argument in operation.inputs.items():
                for binding in argument.arguments:
                    self._uses[binding.name].append((operation, parameter))
        (file_name,) = {name for name, _ in self._half.blobs(everything)}
        target = folder / file_name.removeprefix("@model_path/")
        target.parent.mkdir(parents=True, exist_ok=True)
        blobs = Blobs(target, file_name)
        for operation in everything:
            if operation.type == "const":
                self._rewrite(operation, blobs)
        blobs.close()
        model_file = next(folder.glob("*.mlmodel"))
        model_file.write_bytes(self._model.SerializeToString())

    def _rewrite(self, operation: Any, blobs: Blobs) -> None:
        value = operation.attributes["val"]
        if value.WhichOneof("value") != "blobFileValue":
            return
        weight = self._weight(operation)
        if weight is None:
            blobs.copy(value, self._half)
        elif weight.width in _SCALED:
            self._put_scaled(operation, blobs, weight)
        else:
            self._put_palette(operation, blobs, weight)

    def _weight(self, operation: Any) -> _Weight | None:
        """What to narrow a constant to; None for one that stays."""
        output = operation.outputs[0]
        kind = ELEMENT_TYPES[output.type.tensorType.dataType].name
        rank = output.type.tensorType.rank
        elements = int(np.prod([d.constant.size for d in output.type.tensorType.dimensions]))
        if kind not in _FLOATS or rank < 2 or elements < SMALL_ELEMENTS:
            return None
        values = self._values(operation)
        owner = self._owners.of(values)
        axis = self._output_axis(output.name, rank)
        if axis is None and owner is None:
            return None
        wider = self._request.wider
        width = wider.get(output.name) or self._request.width(owner or output.name)
        if width.weight_bits >= 16:
            return None
        return _Weight(values, axis or 0, width, kind)

    def _values(self, operation: Any) -> Array:
        """The weight as it was before it was rounded to 16 bits, if it can be found."""
        name = operation.outputs[0].name
        rounded = self._half.named(name)
        original = name.removesuffix("_to_fp16")
        if original not in self._full:
            return rounded
        exact = self._full.named(original)
        if exact.shape != rounded.shape or exact.dtype != np.float32:
            return rounded
        same = np.array_equal(exact.astype(np.float16), rounded.astype(np.float16))
        return exact if same else rounded

    def _output_axis(self, name: str, rank: int) -> int | None:
        """The axis of a weight's outputs, told by the first operator that multiplies with it."""
        for operation, parameter in self._uses[name]:
            if (operation.type, parameter) in _WEIGHTS:
                return 0
            if operation.type == "matmul":
                turned = self._half.flag(operation, f"transpose_{parameter}")
                outputs_last = (parameter == "y") != turned
                return rank - 1 if outputs_last else rank - 2
        return None

    def _put_scaled(self, operation: Any, blobs: Blobs, weight: _Weight) -> None:
        made = _SCALED[weight.width](weight.values, weight.axis)
        data = "int4" if weight.width is Precision.INT4 else "int8"
        scales = made.scales.astype(_FLOATS[weight.kind])
        if self._inputs_since:
            parts = {"data": (made.values, data), "scale": (scales, weight.kind)}
            self._put(operation, blobs, "constexpr_blockwise_shift_scale", parts)
            return
        parts = {
            "quantized_data": (made.values, data),
            "zero_point": (np.zeros(scales.size, np.int8), "int8"),
            "scale": (scales.ravel(), weight.kind),
            "axis": (np.array(weight.axis, np.int32), "int32"),
        }
        self._put(operation, blobs, "constexpr_affine_dequantize", parts)

    def _put_palette(self, operation: Any, blobs: Blobs, weight: _Weight) -> None:
        bits = weight.width.weight_bits
        made = palette(weight.values, bits)
        table = made.table.astype(_FLOATS[weight.kind])
        shape = made.indices.shape
        if self._inputs_since:
            table = table.reshape([1] * len(shape) + [table.size, 1])
            parts = {"indices": (made.indices, f"uint{bits}"), "lut": (table, weight.kind)}
        else:
            parts = {
                "indices": (_packed(made.indices, bits), "uint8"),
                "lut": (table, weight.kind),
                "shape": (np.array(shape, np.uint32), "uint32"),
            }
        self._put(operation, blobs, "constexpr_lut_to_dense", parts)

    def _put(
        self, operation: Any, blobs: Blobs, kind: str, parts: dict[str, tuple[Array, str]]
    ) -> None:
        """Turn a `const` into the operator that rebuilds its value."""
        operation.type = kind
        del operation.attributes["val"]
        for name, (array, element) in parts.items():
            if self._inputs_since:
                blobs.put(operation.inputs[name].arguments.add().value, array, element)
            else:
                blobs.put(operation.attributes[name], array, element)


_SCALED = {Precision.INT8: int8, Precision.INT4: int4}


def _packed(indices: Array, bits: int) -> Array:
    """`bits` bits of each index, the least significant first."""
    if bits == 8:
        return indices.ravel()
    flags = np.unpackbits(indices.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(flags, bitorder="little")
