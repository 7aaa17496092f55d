"""Protocol-buffer messages by field number, without their classes.

The wire format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(Exception):
    """Bytes that are not a valid message."""


@dataclass(frozen=True)
class Message:
    """Field number -> its values in order: (wire type, integer or bytes)."""

    fields: Mapping[int, tuple[tuple[int, int | bytes], ...]]

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Parse a message; raises WireError for bytes that are not one."""
        fields: dict[int, list[tuple[int, int | bytes]]] = {}
        position = 0
        while position < len(data):
            key, position = _varint(data, position)
            value, position = _value(data, position, key & 7)
            fields.setdefault(key >> 3, []).append((key & 7, value))
        if 0 in fields:
            raise WireError("field 0")
        return cls({number: tuple(values) for number, values in fields.items()})

    def values(self, number: int, kind: int) -> Iterator[int | bytes]:
        """Yield the values of a field; raises WireError for a value of another wire type."""
        for value_kind, value in self.fields.get(number, ()):
            if value_kind != kind:
                raise WireError(f"field {number}")
            yield value


def messages(message: Message, number: int) -> list[Message]:
    """Return a field's values as messages."""
    return [Message.parse(bytes(value)) for value in _bytes(message, number)]


def texts(message: Message, number: int) -> list[str]:
    """Return a field's values as text."""
    try:
        return [value.decode("utf-8") for value in _bytes(message, number)]
    except UnicodeDecodeError:
        raise WireError(f"field {number}") from None


def floats(message: Message) -> dict[int, float]:
    """Return all fields of 32-bit floats, the last value of each."""
    values_by_field = {}
    for number, values in message.fields.items():
        for kind, value in values:
            if kind == _FIXED32 and isinstance(value, int):
                (values_by_field[number],) = struct.unpack("<f", struct.pack("<I", value))
    return values_by_field


def integers(message: Message) -> dict[int, int]:
    """Return all fields of integers, the last value of each."""
    return {
        number: value
        for number, values in message.fields.items()
        for kind, value in values
        if kind == _VARINT and isinstance(value, int)
    }


def _bytes(message: Message, number: int) -> list[bytes]:
    return [value for value in message.values(number, _BYTES) if isinstance(value, bytes)]


def _value(data: bytes, position: int, kind: int) -> tuple[int | bytes, int]:
    if kind == _VARINT:
        return _varint(data, position)
    if kind == _BYTES:
        length, start = _varint(data, position)
        value: int | bytes = data[start : start + length]
        end = start + length
    elif kind in (_FIXED32, _FIXED64):
        end = position + (4 if kind == _FIXED32 else 8)
        value = int.from_bytes(data[position:end], "little")
    else:
        raise WireError(f"wire type {kind}")
    if end > len(data):
        raise WireError("cut short")
    return value, end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise WireError("varint")
