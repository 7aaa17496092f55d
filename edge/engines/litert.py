"""LiteRT, the current runtime of .tflite files, CPU with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.console import hush
from edge.engines.base import Array, Availability, Engine, Session, installed
from edge.errors import EngineError


class LiteRT(Engine):
    """Run .tflite files with ai-edge-litert."""

    name = "litert"
    format = "tflite"
    module = "ai_edge_litert.interpreter"

    def availability(self) -> Availability:
        return installed("ai_edge_litert", "ai-edge-litert")

    def open(self, path: Path, *, threads: int = 1) -> Session:
        with hush():
            from ai_edge_litert.interpreter import Interpreter

            try:
                # From memory: the mapped file would outlive a bundle that is being replaced.
                interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
                return _Session(interpreter, path)
            except (ValueError, RuntimeError, OSError, KeyError) as error:
                reason = " ".join(str(error).split())[:300]
                raise EngineError(f"LiteRT cannot load {path}: {reason}") from None


class _Session(Session):
    """One runner per signature; each signature has a fixed length, and all share the weights."""

    def __init__(self, interpreter: Any, path: Path) -> None:
        self._path = path
        self._interpreter = interpreter
        self._runners: dict[int, Any] = {}
        for name in interpreter.get_signature_list():
            runner = interpreter.get_signature_runner(name)
            length = int(runner.get_input_details()["input_ids"]["shape"][1])
            self._runners[length] = runner
        if not self._runners:
            raise ValueError("the file has no signatures")

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        length = next(iter(inputs.values())).shape[1]
        if length not in self._runners:
            raise EngineError(f"{self._path} accepts lengths {sorted(self._runners)}, not {length}")
        try:
            outputs: dict[str, Array] = self._runners[length](**inputs)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise EngineError(f"LiteRT failed on {self._path}: {reason}") from None
        return outputs

    def placement(self) -> dict[str, int] | None:
        """Return the nodes of the first signature that run in XNNPACK and in the built-in kernels.

        A delegated node stays in the list, so only nodes that lead to the outputs are counted.
        """
        try:
            nodes = self._interpreter._get_ops_details()
            outputs = self._interpreter.get_output_details()
        except (AttributeError, ValueError, RuntimeError):
            return None  # another version, which has no such list
        by_output = {int(t): node for node in nodes for t in node["outputs"]}
        # The node of a delegate comes last, and has the outputs of the nodes it replaces.
        delegates = {node["index"] for node in nodes if node["op_name"] == "DELEGATE"}
        reached: set[int] = set()
        pending = [int(output["index"]) for output in outputs]
        while pending:
            node = by_output.get(pending.pop())
            if node is not None and node["index"] not in reached:
                reached.add(node["index"])
                pending += [int(tensor) for tensor in node["inputs"]]
        cpu_nodes = len(reached - delegates)
        return {"XNNPACK": len(nodes) - len(delegates) - cpu_nodes, "CPU": cpu_nodes}

    def close(self) -> None:
        self._runners.clear()
        self._interpreter = None
