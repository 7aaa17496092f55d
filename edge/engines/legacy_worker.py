"""The child process that runs tflite-runtime, and the messages it exchanges with its parent.

As a script it is run by the Python of the legacy environment, which has tflite-runtime and an old
numpy and nothing of this project: it imports neither `edge` nor anything else that is not there,
and keeps to Python 3.9. The parent imports `encode` and `decode` from here.

A message is the length of a JSON header (4 bytes, little-endian), the header, then the bytes of
each array that the header lists, in order. A request has "op" (open, run); an answer has
"error" when the request failed.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_LENGTH = struct.Struct("<I")
_ORPHAN_CHECK_S = 1.0

Header = dict[str, Any]
Arrays = dict[str, Any]


def encode(header: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> bytes:
    """One message: the header and named arrays of any shape and any plain dtype."""
    plain = {name: np.ascontiguousarray(value) for name, value in (arrays or {}).items()}
    layout = [[name, value.dtype.str, list(value.shape)] for name, value in plain.items()]
    text = json.dumps({**header, "arrays": layout}).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(value.tobytes() for value in plain.values())])


def decode(read: Callable[[int], bytes | bytearray]) -> tuple[Header, Arrays]:
    """The next message; `read(n)` returns exactly n bytes or raises EOFError."""
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    header = json.loads(read(length))
    arrays = {}
    for name, code, shape in header.pop("arrays"):
        dtype = np.dtype(code)
        size_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(read(size_bytes), dtype).reshape(shape)
    return header, arrays


class Model:
    """One .tflite file; each of its signatures is a fixed input length over shared weights."""

    def __init__(self, path: str, threads: int) -> None:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"{sys.executable} cannot import it ({error})") from None

        # From memory: a mapped file would outlive a bundle that is being replaced.
        self._interpreter = Interpreter(model_content=Path(path).read_bytes(), num_threads=threads)
        self._runners = {}
        for name in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(name)
            self._runners[_shapes_of(runner)] = runner
        if not self._runners:
            raise ValueError("the file has no signatures; convert it again")

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, from the signature whose input names and shapes these are."""
        shapes = _sorted_shapes({name: value.shape for name, value in inputs.items()})
        if shapes not in self._runners:
            accepted = "; ".join(sorted(_describe(known) for known in self._runners))
            raise ValueError(f"it takes {accepted}; not {_describe(shapes)}")
        return dict(self._runners[shapes](**inputs))


def _shapes_of(runner: Any) -> tuple[Any, ...]:
    details = runner.get_input_details()
    return _sorted_shapes({name: detail["shape"] for name, detail in details.items()})


def _sorted_shapes(shapes: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((name, tuple(map(int, shape))) for name, shape in shapes.items()))


def _describe(shapes: tuple[Any, ...]) -> str:
    """For example "attention_mask, input_ids of (1, 128)"."""
    names = ", ".join(name for name, _ in shapes)
    return f"{names} of {', '.join(sorted({str(shape) for _, shape in shapes}))}"


def serve(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    """Answer requests until the parent closes its end; a failed request is answered too."""
    model: Model | None = None
    while True:
        try:
            request, arrays = decode(read)
        except EOFError:
            return
        try:
            if request["op"] == "open":
                model = Model(request["path"], request["threads"])
                answer = encode({})
            elif model is None:
                raise ValueError("no file is open")
            else:
                answer = encode({}, model.run(arrays))
        except Exception as error:  # whatever the runtime raises must reach the parent as text
            answer = encode({"error": str(error) or type(error).__name__})
        write(answer)


def _exit_with_parent() -> None:
    """End this process soon after its parent is gone, even in the middle of a run.

    Linux can send a signal at a parent's death, but sends it when the starting *thread* ends.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(1)


def main() -> None:
    """Serve on stdin and stdout until the parent closes stdin or is gone."""
    # Ctrl-C reaches the whole group: the parent decides, and closes this end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints must not end up between answers
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def read(size: int) -> bytes:
        data = requests.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def write(message: bytes) -> None:
        answers.write(message)
        answers.flush()

    try:
        serve(read, write)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
