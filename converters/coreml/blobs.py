"""The weight files of packages: reading one, and writing another with coremltools' own writer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bundle import KeptWider
from edge.engines.mil.package import ELEMENT_TYPES, WeightFiles, read_model, tensor_type
from edge.precision import SMALL_ELEMENTS, Precision

Array = npt.NDArray[Any]

_NUMBERS = {element.name: number for number, element in ELEMENT_TYPES.items()}
# Smaller ones are part of the model description, as coremltools has it.
_FILE_ELEMENTS = 10
_WRITERS = {"fp32": "write_float_data"}


def operations(model: Any) -> Iterator[Any]:
    """The operators of a program and of the blocks inside them."""
    for function in model.mlProgram.functions.values():
        pending = [function.block_specializations[function.opset]]
        while pending:
            for operation in pending.pop().operations:
                yield operation
                pending.extend(operation.blocks)


def wide_weights(package: Path) -> tuple[KeptWider, ...]:
    """Operators whose weights are in 32 bits although the package's are in 16.

    Their values do not fit 16 bits, or the system that the package is for has no narrow ones.
    """
    model, _ = read_model(package)
    found: dict[str, int] = {}
    constants = {}
    for operation in operations(model):
        if operation.type == "const":
            declared = tensor_type(package, operation.outputs[0].type)
            elements = math.prod(size or 0 for size in declared.shape)
            if declared.element.name == "fp32" and elements >= SMALL_ELEMENTS:
                constants[operation.outputs[0].name] = elements
            continue
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                # Stored once, however many operators read it.
                elements = constants.pop(binding.name, 0)
                if elements:
                    name = operation.outputs[0].name
                    found[name] = found.get(name, 0) + 2 * elements
    return tuple(
        KeptWider(layer=name, precision=Precision.FP32.value, size_bytes=size_bytes)
        for name, size_bytes in found.items()
    )


class Constants:
    """The constants of a saved package, read one at a time."""

    def __init__(self, package: Path) -> None:
        model, folder = read_model(package)
        self._package = package
        self._files = WeightFiles(package, folder)
        self._values = {
            operation.outputs[0].name: operation.attributes["val"]
            for operation in operations(model)
            if operation.type == "const"
        }

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def named(self, name: str) -> Array:
        """A constant, float32 where it is a float; raises KeyError if there is none."""
        held: Array = self._files.decode(self._values[name])
        return held

    def stored(self, value: Any) -> tuple[Array, str]:
        """A constant as it is in the file, and the name of its element type."""
        element = tensor_type(self._package, value.type).element
        held: Array = self._files.decode(value)
        return held.astype(element.stored, copy=False), element.name

    def flag(self, operation: Any, parameter: str) -> bool:
        """A boolean parameter of an operator, False where it is not given."""
        if parameter not in operation.inputs:
            return False
        binding = operation.inputs[parameter].arguments[0]
        value = self._values.get(binding.name, binding.value)
        return bool(self._files.decode(value))

    def blobs(self, among: Iterable[Any]) -> Iterator[tuple[str, int]]:
        """File and offset of the constants that are not part of the model description."""
        for operation in among:
            if operation.type == "const":
                value = operation.attributes["val"]
                if value.WhichOneof("value") == "blobFileValue":
                    yield value.blobFileValue.fileName, value.blobFileValue.offset


class Blobs:
    """A weight file that is being written. name: how the model description calls it."""

    def __init__(self, path: Path, name: str) -> None:
        from coremltools.libmilstoragepython import _BlobStorageWriter

        self._writer = _BlobStorageWriter(str(path))
        self._name = name
        self._copied: dict[int, int] = {}

    def close(self) -> None:
        """Let go of the file; its writer has no other way to finish it."""
        del self._writer

    def copy(self, value: Any, source: Constants) -> None:
        """Make a stored constant point to its place in this file, written once."""
        before = value.blobFileValue.offset
        if before not in self._copied:
            array, element = source.stored(value)
            self._copied[before] = self._write(array, element)
        value.blobFileValue.offset = self._copied[before]
        value.blobFileValue.fileName = self._name

    def put(self, value: Any, array: Array, element: str) -> None:
        """Fill an empty MIL Value with an array, in this file or, if it is small, in itself."""
        declared = value.type.tensorType
        declared.dataType = _NUMBERS[element]
        declared.rank = array.ndim
        for size in array.shape:
            declared.dimensions.add().constant.size = size
        if array.size >= _FILE_ELEMENTS:
            value.blobFileValue.fileName = self._name
            value.blobFileValue.offset = self._write(array, element)
        elif element == "int32":
            value.immediateValue.tensor.ints.values.extend(int(number) for number in array.flat)
        elif element == "fp32":
            value.immediateValue.tensor.floats.values.extend(float(number) for number in array.flat)
        else:
            value.immediateValue.tensor.bytes.values = array.tobytes()

    def _write(self, array: Array, element: str) -> int:
        flat = np.ascontiguousarray(array).reshape(math.prod(array.shape))
        if element == "fp16":
            flat = flat.view(np.uint16)
        write = getattr(self._writer, _WRITERS.get(element, f"write_{element}_data"))
        return int(write(flat))
