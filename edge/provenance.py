"""What a result is made from: the fields of a configuration, resolved to what decides the result.

The type of a field says how it counts, so that a new field counts without being listed anywhere.
Numbers, flags, literals and nested configurations count as they are. A `str` or a `Path` must say
what it is: a plain word, a file, an output ...; one that does not is an error, not a guess.
"""

from __future__ import annotations

import enum
import functools
import importlib.metadata
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edge import __version__
from edge.errors import ConfigError
from edge.storage import sha256

Description = dict[str, Any]
TOOL = "edge-encoders"
# By package, the libraries whose versions decide what it makes; a test compares its imports.
_NUMBERS = ("numpy", "scipy", "tokenizers", "torch", "transformers", "datasets", "pyarrow")
_RUNTIMES = ("onnxruntime", "ai-edge-litert", "coremltools")
LIBRARIES = {
    "distill": (*_NUMBERS, "accelerate"),
    "converters": (
        *(*_NUMBERS, *_RUNTIMES),
        *("litert-torch", "litert-converter", "flatbuffers", "onnx", "onnx-ir", "onnxscript"),
    ),
    "benchmark": (*_NUMBERS, *_RUNTIMES, "onnx"),
}
_SCALARS = (bool, int, float, type(None))
_CONTAINERS = (tuple, list, Union, types.UnionType)


@dataclass(frozen=True)
class Counts:
    """How a field counts: by what `read` gives for its value.

    That may be another configuration, which is described in turn.
    """

    read: Callable[[Any], Any]


class _NoEffect:
    """Mark of a field that does not decide the result."""


def content(path: str | Path) -> str:
    """Hash of a file or folder; raises ConfigError when it is not there."""
    try:
        return sha256(Path(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from None


AS_IS = Counts(lambda value: value)
# Whether there is one decides, where it is does not.
PRESENCE = Counts(lambda value: True)
NO_EFFECT = _NoEffect()
# A name, a mode, a column: what it says is all there is to it.
Word = Annotated[str, AS_IS]
InputPath = Annotated[Path, Counts(content)]
OutputPath = Annotated[Path, NO_EFFECT]
# A folder of what would be made again with the same values.
CachePath = Annotated[Path, NO_EFFECT]


def describe(config: BaseModel) -> Description:
    """What of a configuration decides the result, as plain JSON values.

    Files count by content. Raises ConfigError, or another UserError, for an input that is not
    there; TypeError for a field whose type does not say how it counts.
    """
    rules = rules_of(type(config))
    return {
        name: _resolved(getattr(config, name), rule, f"{type(config).__name__}.{name}")
        for name, rule in rules.items()
        if rule is not NO_EFFECT
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of what differs between two descriptions; of versions, whose."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if "versions" not in names:
        return sorted(names)
    old, new = before.get("versions") or {}, now.get("versions") or {}
    others = {f"version of {name}" for name in {**old, **new} if old.get(name) != new.get(name)}
    return sorted({*names, *others} - {"versions"})


def versions(package: str) -> dict[str, str | None]:
    """The versions that decide what a package makes: the tool's own, and None where one is missing.

    A checkout counts by its version too: who edits the code removes what it made before.
    """
    return {TOOL: __version__, **{name: _version(name) for name in LIBRARIES[package]}}


def plain(description: Mapping[str, Any]) -> Description:
    """The same as it is read back from JSON; raises TypeError for what JSON cannot hold."""
    values: Description = json.loads(json.dumps(description, sort_keys=True))
    return values


@functools.cache
def rules_of(model: type[BaseModel]) -> dict[str, Counts | _NoEffect | None]:
    """How each field of a configuration counts; None where its values count as they are.

    Raises TypeError for a field that does not say.
    """
    return {name: _rule(model, name, field) for name, field in model.model_fields.items()}


def _rule(model: type[BaseModel], name: str, field: FieldInfo) -> Counts | _NoEffect | None:
    where = f"{model.__name__}.{name}"
    own = {mark for mark in field.metadata if isinstance(mark, (Counts, _NoEffect))}
    leaves = list(_leaves(field.annotation, frozenset(own)))
    marks = {mark for _, found in leaves for mark in found}
    if len(marks) > 1:
        raise TypeError(f"{where} says in several ways how it counts: give it one type")
    unclear = [leaf for leaf, found in leaves if not found and not _counts_as_it_is(leaf)]
    if unclear:
        raise TypeError(
            f"{where} holds {unclear[0]} and does not say how it counts in a fingerprint: use a "
            "type of edge.provenance or edge.sources, e.g. Word, InputPath or OutputPath"
        )
    return next(iter(marks), None)


def _leaves(annotation: Any, marks: frozenset[Any]) -> Iterator[tuple[Any, frozenset[Any]]]:
    """The types without parts in an annotation, each with the marks around it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        own = {mark for mark in metadata if isinstance(mark, (Counts, _NoEffect))}
        yield from _leaves(inner, marks | own)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        # A key is a word.
        yield from _leaves(get_args(annotation)[1], marks)
    elif origin in _CONTAINERS:
        for part in get_args(annotation):
            if part is not Ellipsis:
                yield from _leaves(part, marks)
    else:
        yield annotation, marks


def _counts_as_it_is(leaf: Any) -> bool:
    if get_origin(leaf) is Literal:
        return True
    return isinstance(leaf, type) and (leaf in _SCALARS or issubclass(leaf, (enum.Enum, BaseModel)))


def _resolved(value: Any, rule: Counts | _NoEffect | None, where: str) -> Any:
    """A value as JSON holds it; raises TypeError for a kind of value that is not known."""
    if isinstance(value, BaseModel):
        return describe(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return {str(key): _resolved(one, rule, where) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_resolved(one, rule, where) for one in value]
    if isinstance(value, (str, Path)):
        if isinstance(rule, Counts):
            found = rule.read(value)
            return found if isinstance(found, str) else _resolved(found, AS_IS, where)
        if isinstance(value, str):
            return value
    raise TypeError(f"{where}: {type(value).__name__} cannot be part of a fingerprint")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
