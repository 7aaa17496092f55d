"""Assignment of weights to the layers of an encoder, from the names that converters write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

OTHER = "other"
STRUCTURE = "structure"
_FIRST, _LAST = "embeddings", ("head", OTHER, STRUCTURE)

_NUMBERED = re.compile(r"(?:^|[._/])(?:\w+?_)?(?:layers?|layer_groups|blocks?)[._](\d+)(?![^._/'])")
_EMBEDDINGS = re.compile(r"(?<!sentence_)embed", re.IGNORECASE)
_HEAD = re.compile(
    r"(?:^|[._/'])(?:\w+_)?(?:classifier|pooler|qa_outputs|lm_head|predictions?|cls|head|vocab_\w+)"
    r"(?![^._/'])"
)
# LiteRT's names omit the list that holds a layer: encoder.5.attention.
_BARE_NUMBER = re.compile(r"(?:^|[./])(\d+)[./]")
# Maximum number of operators from a weight to a name with its layer; a quantized weight needs 4.
_MAX_STEPS = 12


def layer_of(name: str) -> str:
    """Return "embeddings", "layer N", "head" or "other" for the name of a weight or operator."""
    if match := _NUMBERED.search(name):
        return f"layer {int(match.group(1))}"
    if _EMBEDDINGS.search(name):
        return _FIRST
    if _HEAD.search(name):
        return "head"
    match = _BARE_NUMBER.search(name)
    return f"layer {int(match.group(1))}" if match else OTHER


def in_order(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sort layers in forward order: embeddings, layer 0 ..., head, other, structure."""

    def position(name: str) -> tuple[int, int, str]:
        if name in _LAST:
            return 2, _LAST.index(name), name
        number = name.removeprefix("layer ")
        return (1, int(number), name) if number.isdigit() else (0, 0, name)

    return {name: sizes[name] for name in sorted(sizes, key=position)}


def readable(name: str) -> str:
    """Return a name without the additions of converters: `bert.encoder.5.output.dense`.

    A LiteRT name lists the modules that were fused into a tensor, each as classes and attributes;
    a norm comes first when it only feeds the tensor.
    """
    parts = [_attributes(part) for part in name.split(";")]
    parts = [part for part in parts if part and not part.isdigit()] or [name]
    return min(parts, key=_is_norm).removeprefix("model.")


def _is_norm(name: str) -> bool:
    return "norm" in name.lower()


def _attributes(path: str) -> str:
    """`pkg.BertModel_bert/pkg.BertEncoder_encoder` -> `bert.encoder`."""
    steps = path.split("/")
    if not steps[0].endswith(".ExportView"):
        return path
    return ".".join(step.rpartition(".")[2].partition("_")[2] for step in steps[1:])


@dataclass(frozen=True)
class Operation:
    """One operator of a graph. hint: another name that may contain the layer."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    hint: str = ""


class LayerFinder:
    """Find the layer of a weight without a descriptive name from the operators that use it."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._users: dict[str, list[Operation]] = {}
        for operation in operations:
            for name in operation.inputs:
                self._users.setdefault(name, []).append(operation)

    def locate(self, key: str, name: str) -> tuple[str, str]:
        """Return the display name of a tensor, and its layer.

        key: its name in operators. The layer comes from `name`, or else from the nearest following
        operator with a layer in its names, which is then added to the display name.
        """
        if (layer := layer_of(name)) != OTHER:
            return name, layer
        frontier, seen = [key], {key}
        for _ in range(_MAX_STEPS):
            users = [user for source in frontier for user in self._users.get(source, ())]
            for user in users:
                # A norm that was fused with the sum of a layer is not where its weights are.
                for operand_name in sorted((*user.inputs, user.hint), key=_is_norm):
                    if (layer := layer_of(operand_name)) != OTHER:
                        return f"{name} ({_module(operand_name)})", layer
            frontier = [o for user in users for o in user.outputs if o and o not in seen]
            seen.update(frontier)
        return name, OTHER


def _module(name: str) -> str:
    """Return the module of a parameter."""
    return readable(name).removesuffix(".weight").removesuffix(".bias")
