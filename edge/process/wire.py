"""Messages between a process and its child, and the child's end: JSON and arrays, no pickle.

A message is the length of a JSON text (4 bytes, little-endian), the text, then the bytes of each
array that the text lists, in order. `edge.process.link` is the parent's end.

A child may run under another Python, with this file as its program and the path of a worker as
argument: standard library and numpy only, nothing else of this project, and Python 3.9.
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
    """One message: a JSON object and named arrays of any shape.

    Raises ValueError for an array of Python objects, which only pickle could carry.
    """
    plain = {name: np.asarray(value, order="C") for name, value in (arrays or {}).items()}
    for name, value in plain.items():
        if value.dtype.hasobject:
            raise ValueError(
                f"array '{name}' holds Python objects: it cannot be sent, pickle is off"
            )
    layout = [[name, value.dtype.str, list(value.shape)] for name, value in plain.items()]
    text = json.dumps([message, layout]).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(value.tobytes() for value in plain.values())])


def unpack(read: Read) -> tuple[Message, Arrays]:
    """The next message. read(n) returns 1 to n bytes, or none at the end, which is an EOFError."""
    (length,) = _LENGTH.unpack(_exactly(read, _LENGTH.size))
    message, layout = json.loads(_exactly(read, length))
    arrays = {}
    for name, code, shape in layout:
        dtype = np.dtype(code)
        size_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(_exactly(read, size_bytes), dtype).reshape(shape)
    return message, arrays


def joined(several: Sequence[Mapping[str, Any]]) -> Arrays:
    """Several sets of named arrays as the arrays of one message, "NUMBER/NAME" each."""
    return {f"{i}/{name}": value for i, one in enumerate(several) for name, value in one.items()}


def parted(arrays: Mapping[str, Array]) -> list[Arrays]:
    """What `joined` made one of; a set without arrays behind all others is not told from none."""
    found: list[Arrays] = []
    for key, value in arrays.items():
        number, _, name = key.partition("/")
        while len(found) <= int(number):
            found.append({})
        found[int(number)][name] = value
    return found


def _exactly(read: Read, count: int) -> bytearray:
    # A bytearray: arrays over it can be written to.
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

    A request that fails is answered by {"error": explain(exception)}. The process also ends in
    the middle of a request when stdin is closed. It also looks every `orphan_check_s` seconds, or
    never, whether its parent is gone, which a fork of the parent hides by holding the pipe open.
    """
    # An interrupt is the parent's to handle: it closes stdin.
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
    # At once: the teardown of native libraries takes time, and may fail.
    os._exit(0)


def _claim_streams() -> tuple[int, int]:
    """Stdin and stdout for messages only; what libraries print goes to stderr."""
    requests, replies = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, replies


def _end_with_parent(requests: int, orphan_check_s: float | None) -> None:
    """Wait until the other end of stdin is closed or the parent is gone; then leave at once.

    Linux can send a signal at a parent's death, but sends it when the starting *thread* ends.
    """
    parent = os.getppid()
    watcher = select.poll()
    watcher.register(requests, 0)
    pause_ms = None if orphan_check_s is None else orphan_check_s * 1000
    while not watcher.poll(pause_ms) and os.getppid() == parent:
        pass
    os._exit(0)


def _worker(path: str) -> Any:
    """The class `Worker` of a file."""
    spec = importlib.util.spec_from_file_location("worker", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker"] = module
    spec.loader.exec_module(module)
    return module.Worker


if __name__ == "__main__":
    # Whatever a runtime raises must reach the parent as text.
    serve(_worker(sys.argv[1])().answer, explain=lambda error: str(error) or type(error).__name__)
