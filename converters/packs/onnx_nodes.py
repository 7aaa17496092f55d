"""ONNX nodes added one after another, with tensor names made up on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.engines import Array

# Of the operators that come with onnxruntime-extensions.
EXTENSIONS = "ai.onnx.contrib"
_PREFIX = "text_to_ids"


class Nodes:
    """A growing list of nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._count = 0

    def add(
        self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Append a node; the names of its outputs."""
        from onnx import helper

        self._count += 1
        names = [f"{_PREFIX}/{operator}_{self._count}_{index}" for index in range(outputs)]
        node = helper.make_node(
            operator, inputs, names, f"{_PREFIX}/{operator}_{self._count}", None, domain
        )
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(node)
        return names

    def one(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node of one output."""
        return self.add(operator, *inputs, domain=domain, **attributes)[0]

    def named(self, name: str, source: str) -> None:
        """Give a tensor another name, the last of its names."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [source], [name], f"{_PREFIX}/{name}"))

    def numbers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self._constant(np.asarray(values, np.int64))

    def strings(self, *values: str) -> str:
        """A constant vector of strings."""
        return self._constant(np.asarray([value.encode() for value in values], object))

    def replace(self, text: str, pattern: str, rewrite: str) -> str:
        """Every match of an RE2 pattern replaced, in each string."""
        arguments = (self.strings(pattern), self.strings(rewrite))
        return self.one("StringRegexReplace", text, *arguments, domain=EXTENSIONS)

    def map_characters(
        self, text: str, table: dict[str, str], other: str, *, separator: str
    ) -> str:
        """Each character of one string replaced by its entry in `table`, or by `other`.

        separator: a character that is not in the string. The string must not be empty, and no key
        a tab or a line's end.
        """
        apart = self.replace(text, "(?s)(.)", rf"\1{separator}")
        yes = self._constant(np.asarray([True]))
        _, characters, _ = self.add(
            "StringSplit", apart, self.strings(separator), yes, outputs=3, domain=EXTENSIONS
        )
        values = list(dict.fromkeys([other, *table.values()]))
        places = {value: index for index, value in enumerate(values)}
        lines = "\n".join(f"{char}\t{places[value]}" for char, value in table.items())
        found = self.one("StringToVector", characters, domain=EXTENSIONS, map=lines, unk="0")
        flat = self.one("Reshape", found, self.numbers(-1))
        mapped = self.one("Gather", self.strings(*values), flat)
        return self.one("StringJoin", mapped, self.strings(""), self.numbers(0), domain=EXTENSIONS)

    def slice(self, vector: str, start: str, end: str) -> str:
        """vector[start:end]; both bounds are vectors of one number."""
        return self.one("Slice", vector, start, end)

    def join(self, *vectors: str) -> str:
        """Vectors one after another."""
        return self.one("Concat", *vectors, axis=0)

    def repeat(self, value: int, count: str) -> str:
        """A vector that holds `value` a computed number of times."""
        return self.one("Expand", self.numbers(value), count)

    def _constant(self, value: Array) -> str:
        from onnx import numpy_helper

        return self.one("Constant", value=numpy_helper.from_array(value))


def model_of(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    opsets: dict[str, int],
    *,
    ir_version: int,
) -> Any:
    """A ModelProto of these nodes, with the operators of the extensions allowed."""
    from onnx import helper

    graph = helper.make_graph(list(nodes), "text", list(inputs), list(outputs))
    versions = {**opsets, EXTENSIONS: 1}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*item) for item in versions.items()],
        ir_version=ir_version,
        producer_name="edge-encoders",
    )
