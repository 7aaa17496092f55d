"""The worker that runs tflite-runtime in a child process.

`edge.process.wire` loads it under the Python of the legacy environment, which has tflite-runtime,
an old numpy and no part of this project: it imports nothing else and must work on Python 3.9.
Requests are "open" and "run".
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Arrays = dict[str, Any]


class Model:
    """One .tflite file; each of its signatures is a fixed input length over shared weights."""

    def __init__(self, path: str, threads: int) -> None:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"{sys.executable} cannot import it ({error})") from None

        # By path: a copy in memory would add to the weights of each length. stat() first, because
        # the interpreter does not report a missing file.
        Path(path).stat()
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._runners = {}
        for name in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(name)
            self._runners[_shapes_of(runner)] = runner
        if not self._runners:
            raise ValueError("the file has no signatures; convert it again")

    def run(self, inputs: Arrays) -> Arrays:
        """Return outputs by name, from the signature with the names and shapes of `inputs`."""
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
    """Describe shapes, for example "attention_mask, input_ids of (1, 128)"."""
    names = ", ".join(name for name, _ in shapes)
    return f"{names} of {', '.join(sorted({str(shape) for _, shape in shapes}))}"


class Worker:
    """A worker with at most one open model."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def answer(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return the reply to one request, and the outputs of a run."""
        if request["do"] == "open":
            self._model = Model(request["path"], request["threads"])
            return {}, {}
        if self._model is None:
            raise ValueError("no file is open")
        return {}, self._model.run(arrays)
