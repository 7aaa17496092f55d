"""Loader of saved packages: from the model description to the steps of a MIL program."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.mil.operators import OPERATORS
from edge.engines.mil.package import (
    TensorType,
    Value,
    WeightFiles,
    damaged,
    read_model,
    tensor_type,
)
from edge.engines.mil.steps import Input, Step
from edge.errors import EngineError

# Operators whose parameter `values` is a list of tensors, even when it has one element.
_TAKE_LISTS = frozenset({"concat", "einsum", "stack"})


@dataclass(frozen=True)
class Loaded:
    """A program ready to run; constants hold the decompressed weights in 32 bits."""

    inputs: tuple[Input, ...]
    outputs: dict[str, TensorType]
    constants: dict[str, Value]
    steps: tuple[Step, ...]
    operators: Counter[str]


def load_program(package: Path) -> Loaded:
    """Read a .mlpackage folder and rebuild its weights.

    Raises EngineError for a damaged package, and for an operator or a parameter that has no
    implementation here, before anything runs.
    """
    model, folder = read_model(package)
    return _Loader(package, model, WeightFiles(package, folder)).program()


class _Loader:
    """Convert the model description of one package into constants and steps."""

    def __init__(self, package: Path, model: Any, weights: WeightFiles) -> None:
        self._package = package
        self._model = model
        self._weights = weights
        self._constants: dict[str, Value] = {}
        self._steps: list[Step] = []
        self._types: dict[str, TensorType] = {}

    def program(self) -> Loaded:
        function = self._function()
        block = function.block_specializations.get(function.opset)
        if block is None:
            raise damaged(self._package, f"it has no operators for {function.opset!r}")
        inputs = [self._input(entry) for entry in function.inputs]
        self._types.update((entry.name, entry.type) for entry in inputs)
        # Every operator is checked before weights are decompressed, which is slow.
        for operation in block.operations:
            if operation.type != "const":
                self._check_known(operation)
        for operation in block.operations:
            self._add(operation)
        for name in block.outputs:
            if name not in self._types:
                raise damaged(self._package, f"its output {name!r} is never computed")
        outputs = {name: self._types[name] for name in block.outputs}
        kinds = Counter(operation.type for operation in block.operations)
        steps = _with_releases(self._steps, set(self._constants) | set(outputs))
        return Loaded(tuple(inputs), outputs, self._constants, steps, kinds)

    def _function(self) -> Any:
        functions = self._model.mlProgram.functions
        name = self._model.description.defaultFunctionName or "main"
        if name not in functions:
            raise damaged(self._package, f"it has no function {name!r}")
        return functions[name]

    def _input(self, entry: Any) -> Input:
        declared = tensor_type(self._package, entry.type)
        for described in self._model.description.input:
            if described.name == entry.name:
                array = described.type.multiArrayType
                ranges = tuple(
                    (int(size.lowerBound), None if size.upperBound < 0 else int(size.upperBound))
                    for size in array.shapeRange.sizeRanges
                )
                choices = tuple(
                    tuple(int(size) for size in choice.shape)
                    for choice in array.enumeratedShapes.shapes
                )
                return Input(entry.name, declared, ranges, choices)
        return Input(entry.name, declared)

    def _check_known(self, operation: Any) -> None:
        shown = f"operator {operation.type!r} ({_name(operation)!r})"
        if operation.type not in OPERATORS:
            raise EngineError(
                f"{self._package.name}: {shown} has no implementation here: "
                "run the package with Core ML on a Mac"
            )
        parameters = inspect.signature(OPERATORS[operation.type]).parameters
        given = (set(operation.inputs) | set(operation.attributes)) - {"name"}
        for parameter in sorted(given - set(parameters)):
            raise EngineError(
                f"{self._package.name}: the parameter {parameter!r} of {shown} has no "
                "implementation here: run the package with Core ML on a Mac"
            )
        for parameter, declared in parameters.items():
            if declared.default is inspect.Parameter.empty and parameter not in given:
                raise damaged(self._package, f"{shown} lacks {parameter!r}")

    def _add(self, operation: Any) -> None:
        results = tuple(
            (entry.name, tensor_type(self._package, entry.type)) for entry in operation.outputs
        )
        kind, name = operation.type, _name(operation)
        if kind == "const":
            for result, _ in results:
                self._constants[result] = self._weights.decode(operation.attributes["val"])
        else:
            step = Step(kind, name, OPERATORS[kind], self._arguments(operation, name), results)
            if kind.startswith("constexpr_"):
                with np.errstate(all="ignore"):
                    step.run(self._constants, round_fp16=True)
            else:
                self._steps.append(step)
        self._types.update(results)

    def _arguments(self, operation: Any, name: str) -> dict[str, str | tuple[str, ...]]:
        arguments: dict[str, str | tuple[str, ...]] = {}
        for parameter, value in operation.attributes.items():
            # Compressed weights of iOS 16 and 17 have their parts as attributes.
            if parameter != "name":
                arguments[parameter] = self._constant(f"{name}.{parameter}", value)
        for parameter, argument in operation.inputs.items():
            sources = tuple(
                self._source(binding, f"{name}.{parameter}.{index}", operation)
                for index, binding in enumerate(argument.arguments)
            )
            listed = parameter == "values" and operation.type in _TAKE_LISTS
            if not listed and len(sources) != 1:
                raise damaged(self._package, f"{parameter!r} of {name!r} has {len(sources)} values")
            arguments[parameter] = sources if listed else sources[0]
        return arguments

    def _source(self, binding: Any, name: str, operation: Any) -> str:
        if binding.WhichOneof("binding") == "value":
            return self._constant(name, binding.value)
        source = str(binding.name)
        if source not in self._types and source not in self._constants:
            raise damaged(
                self._package, f"{_name(operation)!r} uses {source!r}, which is not computed before"
            )
        return source

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = self._weights.decode(value)
        return name


def _with_releases(steps: list[Step], retained: set[str]) -> tuple[Step, ...]:
    """Return the steps, each with the tensors that no later step uses."""
    used_later = set(retained)
    reversed_steps: list[Step] = []
    for step in reversed(steps):
        used = (*(name for name, _ in step.results), *step.sources)
        last = tuple(dict.fromkeys(name for name in used if name not in used_later))
        used_later.update(last)
        reversed_steps.append(replace(step, released=last))
    return tuple(reversed(reversed_steps))


def _name(operation: Any) -> str:
    """Return the name of an operator, or else of its first result."""
    named = operation.attributes.get("name") if "name" in operation.attributes else None
    values = list(named.immediateValue.tensor.strings.values) if named is not None else []
    if values:
        return str(values[0])
    return str(operation.outputs[0].name) if operation.outputs else "unnamed"
