"""Worker process of one cell: loads a model, runs it on request, and times the runs.

Started as `python -m benchmark.worker.worker`; `edge.process.wire.serve` delivers the requests, and
ends the process with its parent, even during an inference.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmark.worker.memory import library_bytes, peak_resident_bytes, resident_bytes
from edge.console import hush
from edge.engines import Session, get_engine
from edge.process.link import explain
from edge.process.wire import Arrays, Message, joined, parted, serve


class Worker:
    """One loaded model and the requests it answers."""

    def __init__(self) -> None:
        self._run: Callable[[Arrays], object] = _no_model
        self._session: Session | None = None
        self._opened = ("", "", 1)
        self._feeds: list[Arrays] = []
        self._next = 0
        self._resident_before = 0

    def answer(self, message: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """Return the reply to one request."""
        request = dict(message)
        if request["do"] == "answers":
            return {}, self._answers(arrays)
        handlers: dict[str, Callable[..., Message]] = {
            "load": self._load,
            "warm": self._warm,
            "turn": self._turn,
            "memory": self._memory,
            "stages": self._stages,
            "profile": self._profile,
        }
        return handlers[request.pop("do")](arrays=arrays, **request), {}

    def _load(self, engine: str, path: str, threads: int, arrays: Arrays) -> Message:
        """Open the model, and run it for the first time."""
        runner = get_engine(engine)
        with hush():
            # Before the clock starts: an app loads the model, not Python modules.
            if runner.module:
                importlib.import_module(runner.module)
        self._opened = (engine, path, threads)
        self._feeds = parted(arrays)
        self._resident_before = resident_bytes()
        start = time.perf_counter_ns()
        self._session = runner.open(Path(path), threads=threads)
        loaded = time.perf_counter_ns()
        self._run = self._session.run
        self._run(self._feeds[0])
        done = time.perf_counter_ns()
        gc.collect()
        gc.freeze()
        package = (runner.module or engine).partition(".")[0]
        return {
            "load_ns": loaded - start,
            "first_ns": done - loaded,
            "nodes": self._session.placement(),
            "library_bytes": library_bytes(package),
        }

    def _warm(self, runs: int, min_s: float, max_s: float, arrays: Arrays) -> Message:
        """Run unrecorded until both `runs` and `min_s` are reached, or `max_s`."""
        start = time.perf_counter()
        count, spent = 0, 0.0
        while (count < runs or spent < min_s) and spent < max_s:
            self._run(self._feed())
            count += 1
            spent = time.perf_counter() - start
        return {"runs": count, "duration_s": spent}

    def _turn(self, runs: int, min_s: float, max_s: float, arrays: Arrays) -> Message:
        """Run once unrecorded, then recorded; the reply holds their durations in nanoseconds."""
        clock, run = time.perf_counter_ns, self._run
        processor = time.process_time()
        begin = clock()
        # With the next input, whose shape may be new; the turn still records it.
        run(self._feeds[(self._next + 1) % len(self._feeds)])
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

    def _memory(self, arrays: Arrays) -> Message:
        return {"peak_bytes": peak_resident_bytes(), "before_bytes": self._resident_before}

    def _answers(self, arrays: Arrays) -> Arrays:
        """Return the outputs of inputs outside of the timed ones."""
        session = self._session
        assert session is not None
        return joined([session.run(feed) for feed in parted(arrays)])

    def _stages(self, tokenizer: str, arrays: Arrays, **text_inputs: Any) -> Message:
        """Time each text from end to end, after an unrecorded run; the reply is in nanoseconds."""
        from benchmark.worker.text_encoder import TextEncoder

        encoder = TextEncoder(Path(tokenizer).read_text(encoding="utf-8"), **text_inputs)
        clock = time.perf_counter_ns
        tokenize_ns, infer_ns, e2e_ns = [], [], []
        with _no_collection():
            for number in range(len(encoder)):
                self._run(encoder.feed(number))
                start = clock()
                feed = encoder.feed(number)
                tokenized = clock()
                self._run(feed)
                end = clock()
                tokenize_ns.append(tokenized - start)
                infer_ns.append(end - tokenized)
                e2e_ns.append(end - start)
        return {"tokenize_ns": tokenize_ns, "infer_ns": infer_ns, "e2e_ns": e2e_ns}

    def _profile(self, arrays: Arrays) -> Message:
        """Profile the operators in a separate session."""
        from benchmark.worker.profiling import operators

        engine, path, threads = self._opened
        return {"operators": operators(engine, Path(path), threads, self._feeds)}

    def _feed(self) -> Arrays:
        """Return the next input, in turn."""
        self._next = (self._next + 1) % len(self._feeds)
        return self._feeds[self._next]


def main() -> None:
    """Answer requests until stdin closes."""
    # Without a check for the parent: waking up for it would disturb the timing.
    serve(Worker().answer, explain=explain, orphan_check_s=None)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the recorded runs."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _no_model(feed: Any) -> object:
    raise RuntimeError("no model is loaded")


if __name__ == "__main__":
    main()
