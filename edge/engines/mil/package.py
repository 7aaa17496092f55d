"""Reader of saved Core ML packages: manifest, model description and weight files.

A package is a folder: `Manifest.json` names the model description (a protobuf file), which refers
to blobs in `weights/weight.bin` by offset.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import struct
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.base import Array
from edge.errors import EngineError

# The value of an operator's parameter: a tensor, a string, or a list of either.
Value = Any

_PROTO_PACKAGE = "_edge_coreml_proto"
_BLOB_SENTINEL = 0xDEADBEEF
_BLOB_HEADER = struct.Struct("<IIQQ")
_MODEL_FOLDER_MARK = "@model_path/"


@dataclass(frozen=True)
class ElementType:
    """One MIL element type: its dtype in the file (stored) and while running (held)."""

    name: str
    stored: np.dtype[Any]
    held: np.dtype[Any]
    bits: int
    blob_code: int | None


def _element(name: str, stored: Any, blob_code: int | None = None, **changes: Any) -> ElementType:
    stored = np.dtype(stored)
    held = np.dtype(changes.get("held", stored))
    bits = int(changes.get("bits", stored.itemsize * 8))
    return ElementType(name, stored, held, bits, blob_code)


# Keyed by the DataType numbers of MIL.proto; the blob codes are those of the weight file.
ELEMENT_TYPES: dict[int, ElementType] = {
    1: _element("bool", np.bool_),
    2: _element("str", np.object_),
    10: _element("fp16", "<f2", 1, held=np.float32),
    11: _element("fp32", "<f4", 2),
    12: _element("fp64", "<f8"),
    21: _element("int8", "<i1", 4),
    22: _element("int16", "<i2", 6),
    23: _element("int32", "<i4", 14),
    24: _element("int64", "<i8"),
    25: _element("int4", "<i1", 8, bits=4),
    31: _element("uint8", "<u1", 3),
    32: _element("uint16", "<u2", 7),
    33: _element("uint32", "<u4", 15),
    34: _element("uint64", "<u8"),
    35: _element("uint4", "<u1", 11, bits=4),
    36: _element("uint2", "<u1", 10, bits=2),
    37: _element("uint1", "<u1", 9, bits=1),
    38: _element("uint6", "<u1", 13, bits=6),
    39: _element("uint3", "<u1", 12, bits=3),
}


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor; None stands for a size known only when running."""

    element: ElementType
    shape: tuple[int | None, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Return True if a tensor of this type may have `shape`."""
        return len(shape) == len(self.shape) and all(
            expected is None or expected == size
            for expected, size in zip(self.shape, shape, strict=True)
        )


def read_model(package: Path) -> tuple[Any, Path]:
    """Return the model description of a package, and the folder that weight paths are relative to.

    Raises EngineError when a file is missing, cannot be parsed, or holds no MIL program.
    """
    model_file = _model_file(package)
    model = _model_class()()
    decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    try:
        model.ParseFromString(model_file.read_bytes())
    except OSError as error:
        raise damaged(package, f"{model_file.name!r} cannot be read") from error
    except decode_error as error:
        raise damaged(package, f"{model_file.name!r} is not a Core ML model description") from error
    kind = model.WhichOneof("Type")
    if kind is None:
        raise damaged(package, f"{model_file.name!r} holds no model")
    if kind != "mlProgram":
        raise EngineError(
            f"{package.name} holds a {kind}, not an ML program: "
            "convert for iOS 15 or later to get one"
        )
    return model, model_file.parent


def damaged(package: Path, reason: str) -> EngineError:
    """Return the error for a package whose files contradict each other."""
    return EngineError(f"{package.name} is damaged: {reason}; convert the checkpoint again")


def tensor_type(package: Path, value_type: Any) -> TensorType:
    """Return the tensor type declared by a MIL ValueType; raises EngineError for other kinds."""
    kind = value_type.WhichOneof("type")
    if kind is None:
        raise damaged(package, "a value has no type")
    if kind != "tensorType":
        raise EngineError(f"{package.name} uses a value of kind {kind}, which is not a tensor")
    declared = value_type.tensorType
    element = ELEMENT_TYPES.get(declared.dataType)
    if element is None:
        raise EngineError(
            f"{package.name} uses element type number {declared.dataType}, which is not supported"
        )
    shape = tuple(
        int(size.constant.size) if size.WhichOneof("dimension") == "constant" else None
        for size in declared.dimensions
    )
    return TensorType(element, shape)


@dataclass
class WeightFiles:
    """The constant values of one package, immediate or stored in its weight files."""

    package: Path
    folder: Path
    _contents: dict[str, Array] = field(default_factory=dict)

    def decode(self, value: Any) -> Value:
        """Return a MIL Value as an array (fp16 as float32), a string, or a tuple of these.

        Raises EngineError when the value does not fill its declared shape.
        """
        if value.type.WhichOneof("type") == "listType":
            return tuple(self.decode(item) for item in value.immediateValue.list.values)
        declared = tensor_type(self.package, value.type)
        if None in declared.shape:
            raise damaged(self.package, "a constant has no fixed shape")
        shape = tuple(int(size or 0) for size in declared.shape)
        if value.WhichOneof("value") == "blobFileValue":
            blob = value.blobFileValue
            flat = self._read_blob(blob.fileName, blob.offset, declared.element, math.prod(shape))
        else:
            flat = self._read_immediate(value.immediateValue.tensor, declared.element, shape)
        if flat.size != math.prod(shape):
            raise damaged(self.package, f"a constant of shape {shape} has {flat.size} values")
        held = flat.reshape(shape).astype(declared.element.held, copy=False)
        return held.item() if declared.element.name == "str" and shape == () else held

    def _read_immediate(self, tensor: Any, element: ElementType, shape: tuple[int, ...]) -> Array:
        kind = tensor.WhichOneof("value")
        if kind is None:
            return np.empty(0, element.stored)
        if (kind == "strings") != (element.name == "str"):
            raise damaged(self.package, f"a constant of type {element.name} holds {kind}")
        values = getattr(tensor, kind).values
        if kind == "bytes":
            return _from_bytes(np.frombuffer(values, np.uint8), element, math.prod(shape))
        try:
            return np.array(list(values), element.stored)
        except (ValueError, TypeError, OverflowError) as error:
            raise damaged(self.package, f"a constant is not {element.name}") from error

    def _read_blob(self, name: str, offset: int, element: ElementType, count: int) -> Array:
        contents = self._open(name)
        header = contents[offset : offset + _BLOB_HEADER.size]
        if header.size < _BLOB_HEADER.size:
            raise self._too_short(name, contents.size, offset + _BLOB_HEADER.size)
        sentinel, code, size_bytes, start = _BLOB_HEADER.unpack(header.tobytes())
        if sentinel != _BLOB_SENTINEL or code != element.blob_code:
            raise damaged(
                self.package, f"{Path(name).name!r} holds no {element.name} values at byte {offset}"
            )
        if start + size_bytes > contents.size:
            raise self._too_short(name, contents.size, start + size_bytes)
        return _from_bytes(contents[start : start + size_bytes], element, count)

    def _open(self, name: str) -> Array:
        if name not in self._contents:
            path = self.folder / name.removeprefix(_MODEL_FOLDER_MARK)
            try:
                if not path.resolve().is_relative_to(self.package.resolve()):
                    raise damaged(self.package, f"it names weights outside itself, {name!r}")
                contents = np.fromfile(path, np.uint8)
            except (OSError, ValueError) as error:
                reason = f"the weight file {path.name!r} cannot be read"
                raise damaged(self.package, reason) from error
            # Constants are views of it; an operator that writes to its input must fail.
            contents.flags.writeable = False
            self._contents[name] = contents
        return self._contents[name]

    def _too_short(self, name: str, size_bytes: int, needed_bytes: int) -> EngineError:
        return damaged(
            self.package,
            f"{Path(name).name!r} ends after {size_bytes} bytes where {needed_bytes} are needed",
        )


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """Unpack `count` unsigned values of `bits` bits each, stored least significant bit first."""
    group_bytes = math.lcm(bits, 8) // 8
    padding = -packed.size % group_bytes
    groups = np.pad(packed, (0, padding)).reshape(-1, group_bytes).astype(np.uint32)
    words = sum(groups[:, index] << np.uint32(8 * index) for index in range(group_bytes))
    values = np.empty((groups.shape[0], group_bytes * 8 // bits), np.uint8)
    for index in range(values.shape[1]):
        values[:, index] = (words >> np.uint32(bits * index)) & np.uint32((1 << bits) - 1)
    return values.reshape(-1)[:count]


def _from_bytes(data: Array, element: ElementType, count: int) -> Array:
    if element.bits < 8:
        values = unpack_bits(data, element.bits, count)
        if element.stored.kind != "i":
            return values
        sign = np.uint8(1 << (element.bits - 1))
        return (values ^ sign).view(np.int8) - sign.view(np.int8)
    whole = data.size - data.size % element.stored.itemsize
    return np.ascontiguousarray(data[:whole]).view(element.stored)


def _model_file(package: Path) -> Path:
    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        model_file = package / "Data" / root
        if not model_file.resolve().is_relative_to(package.resolve()):
            raise damaged(package, "Manifest.json names a model outside the package")
        if not model_file.is_file():
            raise damaged(package, f"{root!r} is missing")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EngineError(f"{package} is not a Core ML package: it has no Manifest.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(package, "Manifest.json names no model") from error
    return model_file


def _model_class() -> Any:
    """Return the protobuf class of a Core ML model description.

    It is loaded from coremltools' folder under another package name, because importing coremltools
    itself imports torch and scikit-learn, which takes seconds.
    """
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("reading a Core ML package needs coremltools: pip install coremltools")
    if _PROTO_PACKAGE not in sys.modules:
        package = types.ModuleType(_PROTO_PACKAGE)
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "proto")]
        sys.modules[_PROTO_PACKAGE] = package
    return importlib.import_module(f"{_PROTO_PACKAGE}.Model_pb2").Model
