"""Which part of an encoder a weight belongs to, told from names that three converters change."""

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
# LiteRT's names leave out the list a layer is in: encoder.5.attention.
_BARE_NUMBER = re.compile(r"(?:^|[./])(\d+)[./]")
# A walk from a weight to something with a telling name; a quantised one passes four operators.
_WALK = 12


def layer_of(name: str) -> str:
    """ "embeddings", "layer N", "head" or "other", from a weight's or an operator's name."""
    if found := _NUMBERED.search(name):
        return f"layer {int(found.group(1))}"
    if _EMBEDDINGS.search(name):
        return _FIRST
    if _HEAD.search(name):
        return "head"
    found = _BARE_NUMBER.search(name)
    return f"layer {int(found.group(1))}" if found else OTHER


def in_order(sizes: Mapping[str, int]) -> dict[str, int]:
    """Layers as they are passed through: embeddings, layer 0 ..., head, other, structure."""

    def position(name: str) -> tuple[int, int, str]:
        if name in _LAST:
            return 2, _LAST.index(name), name
        number = name.removeprefix("layer ")
        return (1, int(number), name) if number.isdigit() else (0, 0, name)

    return {name: sizes[name] for name in sorted(sizes, key=position)}


def readable(name: str) -> str:
    """A name without what converters add: `bert.encoder.5.output.dense`.

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
    """One operator for the purpose of finding out where it is. hint: any name that may tell."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    hint: str = ""


class Places:
    """Finds where a nameless weight belongs from what is done with it."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._users: dict[str, list[Operation]] = {}
        for operation in operations:
            for name in operation.inputs:
                self._users.setdefault(name, []).append(operation)

    def locate(self, key: str, name: str) -> tuple[str, str]:
        """The name to show for a tensor, and its layer.

        key: what operators call it. The layer is the one its name tells, or else that of the
        first operator on its way that tells one; then that operator's name is shown too.
        """
        if (layer := layer_of(name)) != OTHER:
            return name, layer
        front, seen = [key], {key}
        for _ in range(_WALK):
            users = [user for source in front for user in self._users.get(source, ())]
            for user in users:
                # A norm that was fused with the sum of a layer is not where its weights are.
                for told in sorted((*user.inputs, user.hint), key=_is_norm):
                    if (layer := layer_of(told)) != OTHER:
                        return f"{name} ({_module(told)})", layer
            front = [o for user in users for o in user.outputs if o and o not in seen]
            seen.update(front)
        return name, OTHER


def _module(name: str) -> str:
    """The module a parameter belongs to."""
    return readable(name).removesuffix(".weight").removesuffix(".bias")
