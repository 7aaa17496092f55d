"""The process of one cell: loads a model, runs it when asked, and reads the clock beside the run.

Started as `python -m benchmark.worker`; requests come in on stdin, replies go out on stdout, and
the process ends when stdin closes, in the middle of an inference too.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from benchmark.memory import peak_resident_bytes, resident_bytes
from benchmark.wire import Array, Message, pack, unpack
from edge.console import hush
from edge.engines import Session, get_engine
from edge.errors import EdgeError

# Imported before the clock starts: what an app pays for loading is the model, not Python's imports.
RUNTIME_MODULES = {
    "onnxruntime": "onnxruntime",
    "litert": "ai_edge_litert.interpreter",
    "coreml": "coremltools",
    "pytorch": "transformers.modeling_utils",
}


class Worker:
    """One loaded model and the requests it answers."""

    def __init__(self) -> None:
        self._run: Callable[[dict[str, Array]], object] = _not_loaded
        self._session: Session | None = None
        self._feeds: list[dict[str, Array]] = []
        self._next = 0
        self._resident_before = 0

    def answer(self, message: Message, arrays: dict[str, Array]) -> Message:
        """The reply to one request."""
        request = dict(message)
        handlers: dict[str, Callable[..., Message]] = {
            "load": self._load,
            "warm": self._warm,
            "turn": self._turn,
            "memory": self._memory,
        }
        return handlers[request.pop("do")](arrays=arrays, **request)

    def _load(self, engine: str, path: str, threads: int, arrays: dict[str, Array]) -> Message:
        """Open the model, and run it for the first time."""
        runner = get_engine(engine)
        with hush():
            if engine in RUNTIME_MODULES:
                importlib.import_module(RUNTIME_MODULES[engine])
        self._feeds = _split(arrays)
        self._resident_before = resident_bytes()
        start = time.perf_counter_ns()
        self._session = runner.open(Path(path), threads=threads)
        loaded = time.perf_counter_ns()
        self._run = self._session.run
        self._run(self._feeds[0])
        done = time.perf_counter_ns()
        gc.collect()
        gc.freeze()
        return {"load_ns": loaded - start, "first_ns": done - loaded}

    def _warm(self, runs: int, min_s: float, max_s: float, arrays: dict[str, Array]) -> Message:
        """Unrecorded runs until there were enough of them and for long enough."""
        start = time.perf_counter()
        count, spent = 0, 0.0
        while (count < runs or spent < min_s) and spent < max_s:
            self._run(self._feed())
            count += 1
            spent = time.perf_counter() - start
        return {"runs": count, "duration_s": spent}

    def _turn(self, runs: int, min_s: float, max_s: float, arrays: dict[str, Array]) -> Message:
        """One unrecorded run, then recorded ones; the durations of these in nanoseconds."""
        clock, run = time.perf_counter_ns, self._run
        processor = time.process_time()
        begin = clock()
        run(self._feed())
        least, limit = clock() + int(min_s * 1e9), begin + int(max_s * 1e9)
        raw_ns: list[int] = []
        with _no_collection():
            while True:
                feed = self._feed()
                start = clock()
                run(feed)
                end = clock()
                raw_ns.append(end - start)
                if end >= limit or (len(raw_ns) >= runs and end >= least):
                    break
        return {
            "raw_ns": raw_ns,
            "duration_s": (end - begin) / 1e9,
            "processor_s": time.process_time() - processor,
        }

    def _memory(self, arrays: dict[str, Array]) -> Message:
        return {"peak_bytes": peak_resident_bytes(), "before_bytes": self._resident_before}

    def _feed(self) -> dict[str, Array]:
        """The next input, one after another."""
        self._next = (self._next + 1) % len(self._feeds)
        return self._feeds[self._next]


def main() -> None:
    """Answer requests until stdin closes."""
    requests, replies = _claim_streams()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    worker = Worker()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            message, arrays = unpack(lambda count: _exactly(requests, count))
            try:
                reply = worker.answer(message, arrays)
            except EdgeError as error:
                reply = {"error": str(error)}
            except Exception as error:
                reply = {"error": f"unexpected {type(error).__name__}: {error}"}
            replies.write(pack(reply))
            replies.flush()
    os._exit(0)


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout for messages only; what libraries print goes to stderr."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, replies


def _end_with_parent(descriptor: int) -> None:
    """Wait, without ever waking up, until the other end of stdin is closed; then leave at once."""
    watcher = select.poll()
    watcher.register(descriptor, 0)
    watcher.poll()
    os._exit(0)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _split(arrays: dict[str, Array]) -> list[dict[str, Array]]:
    """Inputs of shape (n, length) as n separate ones of shape (1, length)."""
    count = len(next(iter(arrays.values())))
    return [{name: a[i : i + 1].copy() for name, a in arrays.items()} for i in range(count)]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the recorded runs."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _not_loaded(feed: Any) -> object:
    raise RuntimeError("no model is loaded")


if __name__ == "__main__":
    main()
