"""Message format between a process and its child, and the child's side; no pickle.

A message is the length of a JSON text (4 bytes, little-endian), the text, then the bytes of each
array that the text lists, in order. The parent's side is in `edge.process.link`.

A child may run under another Python, with this file as its program and the path of a worker as
argument. So this file imports only the standard library and numpy, and must work on Python 3.9.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Message = dict[str, Any]
Read = Callable[[int], bytes]

_LENGTH = struct.Struct("<I")
_CHUNK_BYTES = 1 << 20


def pack(message: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> bytes:
    """Encode one message: a JSON object and named arrays of any shape.

    Raises ValueError for an array of Python objects, which only pickle could carry.
    """
    contiguous = {name: np.asarray(value, order="C") for name, value in (arrays or {}).items()}
    for name, value in contiguous.items():
        if value.dtype.hasobject:
            raise ValueError(
                f"array '{name}' holds Python objects: it cannot be sent, pickle is off"
            )
    layout = [[name, value.dtype.str, list(value.shape)] for name, value in contiguous.items()]
    text = json.dumps([message, layout]).encode()
    return b"".join(
        [_LENGTH.pack(len(text)), text, *(value.tobytes() for value in contiguous.values())]
    )


def unpack(read: Read) -> tuple[Message, Arrays]:
    """Decode the next message. read(n) returns 1 to n bytes; 0 bytes raise EOFError."""
    (length,) = _LENGTH.unpack(_exactly(read, _LENGTH.size))
    message, layout = json.loads(_exactly(read, length))
    arrays = {}
    for name, code, shape in layout:
        dtype = np.dtype(code)
        size_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(_exactly(read, size_bytes), dtype).reshape(shape)
    return message, arrays


def joined(sets: Sequence[Mapping[str, Any]]) -> Arrays:
    """Merge sets of named arrays into the arrays of one message, named "NUMBER/NAME"."""
    return {f"{i}/{name}": value for i, arrays in enumerate(sets) for name, value in arrays.items()}


def parted(arrays: Mapping[str, Array]) -> list[Arrays]:
    """Split the result of `joined` into its sets; empty sets at the end are lost."""
    sets: list[Arrays] = []
    for key, value in arrays.items():
        number, _, name = key.partition("/")
        while len(sets) <= int(number):
            sets.append({})
        sets[int(number)][name] = value
    return sets


def _exactly(read: Read, count: int) -> bytearray:
    # A bytearray, so that arrays on it are writable.
    data = bytearray()
    while len(data) < count:
        part = read(min(count - len(data), _CHUNK_BYTES))
        if not part:
            raise EOFError
        data += part
    return data


def serve(
    answer: Callable[[Message, Arrays], tuple[Message, Arrays]],
    *,
    explain: Callable[[Exception], str],
    orphan_check_s: float | None = 1.0,
) -> None:
    """Answer requests on stdin until the parent closes it, then end this process.

    The reply to a failed request is {"error": explain(exception)}. The process also ends during a
    request when stdin is closed. Every `orphan_check_s` seconds, unless None, it also checks that
    its parent is alive, because a fork of a dead parent may keep the pipe open.
    """
    # The parent handles an interrupt, and closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = _claim_streams()
    watch = functools.partial(_end_with_parent, requests, orphan_check_s)
    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError), os.fdopen(replies, "wb") as output:
        while True:
            message, arrays = unpack(functools.partial(os.read, requests))
            try:
                reply = pack(*answer(message, arrays))
            except Exception as error:
                reply = pack({"error": explain(error)})
            output.write(reply)
            output.flush()
    # Immediately: the teardown of native libraries takes time, and may fail.
    os._exit(0)


def _claim_streams() -> tuple[int, int]:
    """Reserve stdin and stdout for messages; the output of libraries goes to stderr."""
    requests, replies = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, replies


def _end_with_parent(requests: int, orphan_check_s: float | None) -> None:
    """Exit immediately when the other end of stdin is closed or the parent has ended.

    Linux's parent-death signal is no alternative: it is sent when the starting *thread* ends.
    """
    parent = os.getppid()
    watcher = select.poll()
    watcher.register(requests, 0)
    pause_ms = None if orphan_check_s is None else orphan_check_s * 1000
    while not watcher.poll(pause_ms) and os.getppid() == parent:
        pass
    os._exit(0)


def _worker(path: str) -> Any:
    """Return the class `Worker` of a file."""
    spec = importlib.util.spec_from_file_location("worker", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker"] = module
    spec.loader.exec_module(module)
    return module.Worker


if __name__ == "__main__":
    # Any exception of a runtime must reach the parent as text.
    serve(_worker(sys.argv[1])().answer, explain=lambda error: str(error) or type(error).__name__)
