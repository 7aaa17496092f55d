"""Messages between the benchmark and a worker process: a JSON object and arrays, no pickle.

A message is two 32-bit little-endian lengths, a JSON text, and an .npz archive; without arrays
the archive is empty.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Message = dict[str, Any]
_LENGTHS = struct.Struct("<II")


def pack(message: Message, arrays: Mapping[str, Array] | None = None) -> bytes:
    """The bytes of one message."""
    text = json.dumps(message).encode()
    archive = io.BytesIO()
    if arrays:
        # A dict of names as keywords: numpy's own stubs know only its named parameters.
        np.savez(archive, **dict(arrays))  # type: ignore[arg-type]
    body = archive.getvalue()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def unpack(read: Callable[[int], bytes]) -> tuple[Message, dict[str, Array]]:
    """The next message. read(n) returns exactly n bytes, or raises."""
    text_length, body_length = _LENGTHS.unpack(read(_LENGTHS.size))
    message: Message = json.loads(read(text_length))
    if not body_length:
        return message, {}
    with np.load(io.BytesIO(read(body_length)), allow_pickle=False) as archive:
        return message, dict(archive)
