"""Reader of .mlpackage folders that hold an ML program."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edge.engines.mil.package import ELEMENT_TYPES, read_model, tensor_type
from edge.errors import BundleError, EngineError
from edge.inspection.contents import Contents, damaged, is_weight
from edge.inspection.layers import LayerFinder, Operation
from edge.inspection.records import Signature, StoredTensor
from edge.signature import TensorSpec

_TITLE = "Core ML"
_VERSION = "com.github.apple.coremltools.version"
# Parameters of a compressed weight other than its values.
_SCALES = frozenset({"scale", "zero_point", "offset", "lut", "mask", "axis", "shape"})
_INTEGERS = frozenset({"axis", "shape"})


def read(path: Path) -> Contents:
    """Parse a .mlpackage; raises BundleError when it is not one or is damaged."""
    try:
        model, folder = read_model(path)
        return _Reader(path, model, folder).contents()
    except EngineError as error:
        raise BundleError(str(error)) from None
    except (OSError, ValueError, OverflowError) as error:
        raise damaged(path, _TITLE, error) from None


class _Reader:
    def __init__(self, path: Path, model: Any, folder: Path) -> None:
        self._path = path
        self._model = model
        self._folder = folder
        self._operations = [
            operation
            for function in model.mlProgram.functions.values()
            for operation in _operations(function.block_specializations.get(function.opset))
        ]
        if not self._operations:
            raise damaged(path, _TITLE, "it holds no operators")
        self._files: dict[str, int] = {}

    def contents(self) -> Contents:
        metadata = self._model.description.metadata.userDefined
        opsets = sorted({f.opset for f in self._model.mlProgram.functions.values()})
        producer = f"coremltools {metadata[_VERSION]}" if _VERSION in metadata else None
        return Contents(
            version=f"{', '.join(opsets)}, specification {self._model.specificationVersion}",
            producer=producer,
            signatures=(self._signature(),),
            operators=Counter(o.type for o in self._operations if o.type != "const"),
            tensors=tuple(self._tensors()),
        )

    def _tensors(self) -> Iterator[StoredTensor]:
        """Yield each constant once, even if several operators refer to its blob."""
        layers = LayerFinder(_operation(operation) for operation in self._operations)
        parameters = self._constant_parameters()
        seen: set[tuple[str, int]] = set()
        for operation in self._operations:
            name = operation.outputs[0].name if operation.outputs else ""
            for parameter, value in _values(operation):
                if value.WhichOneof("value") == "blobFileValue":
                    blob = (value.blobFileValue.fileName, value.blobFileValue.offset)
                    if blob in seen:
                        continue
                    seen.add(blob)
                role_parameter = (
                    parameter if operation.type != "const" else parameters.get(name, "")
                )
                yield self._stored(operation, name, role_parameter, value, layers)

    def _stored(
        self, operation: Any, name: str, parameter: str, value: Any, layers: LayerFinder
    ) -> StoredTensor:
        """Describe one constant. parameter: its role in a compressed weight, or empty."""
        declared = tensor_type(self._path, value.type)
        shape = tuple(int(size or 0) for size in declared.shape)
        elements = math.prod(shape)
        size_bytes = -(-elements * declared.element.bits // 8)
        self._check_size(name, value, size_bytes)
        dtype = declared.element.name if declared.element.bits < 8 else str(declared.element.stored)
        role: Literal["weight", "scale", "index"] = "index"
        if parameter in _SCALES - _INTEGERS:
            role = "scale"
        elif parameter not in _INTEGERS and is_weight(dtype, elements):
            role = "weight"
        if role == "weight" and operation.type.startswith("constexpr_"):
            # The number of packed indices is not the number of weights.
            dense = tensor_type(self._path, operation.outputs[0].type).shape
            elements = math.prod(int(size or 0) for size in dense)
        shown, layer = layers.locate(name, name)
        return StoredTensor(
            name=f"{shown}: {parameter}" if role == "scale" else shown,
            dtype=dtype,
            shape=shape,
            elements=elements,
            size_bytes=size_bytes,
            role=role,
            layer=layer,
        )

    def _constant_parameters(self) -> dict[str, str]:
        """Return constant -> parameter of its compressed weight (iOS 18 and later)."""
        return {
            binding.name: parameter
            for operation in self._operations
            if operation.type.startswith("constexpr_")
            for parameter, argument in operation.inputs.items()
            for binding in argument.arguments
        }

    def _check_size(self, name: str, value: Any, size_bytes: int) -> None:
        """Raise BundleError for a constant that exceeds its weight file."""
        if value.WhichOneof("value") != "blobFileValue":
            return
        blob = value.blobFileValue
        if blob.fileName not in self._files:
            file = self._folder / blob.fileName.removeprefix("@model_path/")
            inside = file.resolve().is_relative_to(self._path.resolve())
            self._files[blob.fileName] = file.stat().st_size if inside and file.is_file() else 0
        if blob.offset + size_bytes > self._files[blob.fileName]:
            raise damaged(self._path, _TITLE, f"the values of '{name}' are not in its weight file")

    def _signature(self) -> Signature:
        description = self._model.description
        return Signature(
            name=description.defaultFunctionName or "main",
            inputs=tuple(_spec(entry) for entry in description.input),
            outputs=tuple(_spec(entry) for entry in description.output),
        )


def _operations(block: Any) -> Iterator[Any]:
    """Yield the operators of a block and of its nested blocks."""
    pending = [block] if block is not None else []
    while pending:
        for operation in pending.pop().operations:
            yield operation
            pending.extend(operation.blocks)


def _values(operation: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors stored in an operator, by parameter; since iOS 18 some are inputs."""
    for attribute, value in operation.attributes.items():
        if attribute != "name" and _is_tensor(value):
            yield attribute, value
    if operation.type.startswith("constexpr_"):
        for parameter, argument in operation.inputs.items():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "value" and _is_tensor(binding.value):
                    yield parameter, binding.value


def _operation(operation: Any) -> Operation:
    names = [b.name for argument in operation.inputs.values() for b in argument.arguments]
    return Operation([n for n in names if n], [output.name for output in operation.outputs])


def _is_tensor(value: Any) -> bool:
    """Return True if a value is a tensor of numbers."""
    kind = value.type
    if kind.WhichOneof("type") != "tensorType":
        return False
    element = ELEMENT_TYPES.get(kind.tensorType.dataType)
    return element is None or element.name != "str"


def _spec(entry: Any) -> TensorSpec:
    array = entry.type.multiArrayType
    dtype = array.ArrayDataType.Name(array.dataType).lower() if array.dataType else "unknown"
    ranges = list(array.shapeRange.sizeRanges)
    choices = [tuple(choice.shape) for choice in array.enumeratedShapes.shapes]
    shape: tuple[int | str, ...] = tuple(int(size) for size in array.shape)
    if len(ranges) == len(shape):
        shape = tuple(_size(size) for size in ranges)
    if choices and {len(choice) for choice in choices} == {len(shape)}:
        shape = tuple(
            _choice({int(size) for size in sizes}) for sizes in zip(*choices, strict=True)
        )
    return TensorSpec(name=entry.name, dtype=dtype, shape=shape)


def _size(size: Any) -> int | str:
    if size.lowerBound == size.upperBound:
        return int(size.lowerBound)
    return f"{size.lowerBound}..{size.upperBound if size.upperBound >= 0 else ''}"


def _choice(sizes: set[int]) -> int | str:
    """Return the size of a dimension, or its choices as "8|16"."""
    if len(sizes) == 1:
        return sizes.pop()
    return "|".join(str(size) for size in sorted(sizes))
