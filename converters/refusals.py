"""Why a model cannot be converted: which operator or decision, in which of its layers.

Libraries say it in hundreds of lines, and seldom where. The frames that an error passed through
still hold what was being traced or translated, whichever library raised it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converters.base import Request
from edge.errors import ConfigError, ConversionError
from edge.formats import FORMATS, Format

_LONGEST = 300
# What tracing raises where the next step depends on the values of a tensor.
_UNDECIDABLE = ("GuardOnDataDependentSymNode", "DataDependentOutputException")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OPERATOR = re.compile(r"[\w.:]*aten[.:]+(\w+)|\bop(?:erator)? '?\"?(\w+)")


def failure(what: str, error: Exception) -> ConversionError:
    """One line about whatever class a library raised."""
    if isinstance(error, ConversionError):
        return error
    return ConversionError(f"{what}: {describe_failure(error)}")


def describe_failure(error: Exception) -> str:
    """One line about an error of torch.export or of a converter of what it exports."""
    errors = list(_chain(error))
    node = _translated_node(errors)
    if node is not None:
        return f"operator {node.target} in {layer_of(node)} cannot be translated"
    layer = _traced_layer(errors)
    if any(type(each).__name__ in _UNDECIDABLE for each in errors):
        return (
            f"{layer or 'the model'} decides by the values in a tensor, which a graph cannot: "
            "use a mask or torch.where"
        )
    message = " ".join(_COLOURS.sub("", str(_cause(error))).split())[:_LONGEST]
    return f"in {layer}: {message}" if layer else message


def require_fitting_files(parameters: int, wanted: Mapping[str, Sequence[Request]]) -> None:
    """Raise ConfigError for an artifact larger than its format can store, before any export.

    wanted: the artifacts, by format.
    """
    for name, artifacts in wanted.items():
        form = FORMATS[name]
        for request in artifacts:
            bits = 32 if form.fp32_first else request.precision.weight_bits
            needed = _file_bytes(parameters, bits)
            if form.largest_bytes is not None and needed > form.largest_bytes:
                raise ConfigError(_too_large(form, request, parameters, needed))


def _file_bytes(parameters: int, bits: int) -> int:
    # Scales and operators are a fiftieth at most of a model that is near a limit.
    return int(1.02 * parameters * bits / 8)


def _too_large(form: Format, request: Request, parameters: int, needed: int) -> str:
    assert form.largest_bytes is not None
    limit = f"one {form.title} file holds at most {form.largest_bytes / 1e9:.2f} GB"
    if form.fp32_first:
        return (
            f"{form.title} is exported in fp32 first, {needed / 1e9:.2f} GB, and "
            f"{limit}: use --format onnx or coreml"
        )
    narrower = [
        each.value
        for each in form.target(request.target).precisions
        if _file_bytes(parameters, each.weight_bits) <= form.largest_bytes
    ]
    advice = f"--precision {' or '.join(narrower)}" if narrower else "--format coreml"
    return (
        f"{form.title} {request.precision.value} needs {needed / 1e9:.2f} GB, and "
        f"{limit}: use {advice}"
    )


def layer_of(node: Any) -> str:
    """`layer encoder.layer.0 (BertLayer)` of an exported operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "the model"
    if len(stack) == 1:
        # What is exported around the checkpoint's model makes the task's answers.
        return "the task's head"
    path, kind = stack[-1]
    name = kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]
    return _called(str(path).replace("L['self']", "").lstrip("."), name)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, the first cause last."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _cause(error: BaseException) -> BaseException:
    """What an error was raised from; what wraps it holds advice to programmers."""
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    return error


def _locals(errors: list[BaseException]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Function name and variables of each frame, from the outermost to where it broke."""
    for error in errors:
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_code.co_name, trace.tb_frame.f_locals
            trace = trace.tb_next


def _translated_node(errors: list[BaseException]) -> Any | None:
    """The operator of an exported graph that was being translated, if it got that far."""
    from torch import fx
    from torch.export import ExportedProgram

    found, program = None, None
    for _, variables in _locals(errors):
        for value in variables.values():
            if isinstance(value, fx.Node) and value.op == "call_function":
                found = value if value.meta.get("nn_module_stack") else found
            elif isinstance(value, ExportedProgram):
                program = value
    return found or (None if program is None else _named_node(program, errors))


def _named_node(program: Any, errors: list[BaseException]) -> Any | None:
    """The first operator of a program that a message names."""
    named = {name for e in errors for pair in _OPERATOR.findall(str(e)) for name in pair if name}
    for node in program.graph.nodes:
        if node.op == "call_function" and getattr(node.target, "_opname", None) in named:
            return node
    return None


def _traced_layer(errors: list[BaseException]) -> str | None:
    """The innermost module that was running, if tracing was what broke."""
    from torch import nn

    running = [
        variables["self"]
        for name, variables in _locals(errors)
        if name == "forward" and isinstance(variables.get("self"), nn.Module)
    ]
    for root in running:
        for path, module in root.named_modules():
            if module is running[-1] and module is not root:
                return _called(path, type(module).__name__)
    return None


def _called(path: str, kind: str) -> str:
    # The first parts are what is exported around the checkpoint's model.
    layer = re.sub(r"^(_export_root(\.|$))?(model(\.|$))?", "", path)
    return f"layer {layer} ({kind})" if layer else f"the model ({kind})"
