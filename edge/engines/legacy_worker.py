"""What the child process that runs tflite-runtime answers.

It is loaded by `edge.process.wire` under the Python of the legacy environment, which has
tflite-runtime and an old numpy and nothing of this project: it imports nothing else, and keeps to
Python 3.9.
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

        # By its path: a copy in memory would be there beside the weights of each length. It is
        # looked for first, since the interpreter does not say that a file is missing.
        Path(path).stat()
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
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


class Worker:
    """At most one open model, and the requests it answers."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def answer(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """The reply to one request, and the outputs of a run."""
        if request["do"] == "open":
            self._model = Model(request["path"], request["threads"])
            return {}, {}
        if self._model is None:
            raise ValueError("no file is open")
        return {}, self._model.run(arrays)
