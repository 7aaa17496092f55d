"""Fingerprints of configurations: the values and file contents that decide a result.

The type of a field says how it enters the fingerprint, so a new field enters without being listed.
Numbers, flags, literals and nested configurations enter by value. The type of a `str` or `Path`
must say what it holds: a plain word, a file, an output ...; otherwise it is an error.
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
# Package -> libraries whose versions decide its results; a test compares the imports.
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
    """The fingerprint rule of a field: it enters as `read(value)`.

    The result may be another configuration, which is described in turn.
    """

    read: Callable[[Any], Any]


class _NoEffect:
    """Marker of a field that does not decide the result."""


def content(path: str | Path) -> str:
    """Return the hash of a file or folder; raises ConfigError when it is missing."""
    try:
        return sha256(Path(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from None


AS_IS = Counts(lambda value: value)
# Only its presence decides the result, not its value.
PRESENCE = Counts(lambda value: True)
NO_EFFECT = _NoEffect()
# A name, a mode, a column: it enters by value.
Word = Annotated[str, AS_IS]
InputPath = Annotated[Path, Counts(content)]
OutputPath = Annotated[Path, NO_EFFECT]
# A folder of results that can be recomputed from the same values.
CachePath = Annotated[Path, NO_EFFECT]


def describe(config: BaseModel) -> Description:
    """Return the values of a configuration that decide its result, as plain JSON values.

    Files enter by content. Raises ConfigError, or another UserError, for a missing input; TypeError
    for a field whose type has no fingerprint rule.
    """
    rules = rules_of(type(config))
    return {
        name: _resolved(getattr(config, name), rule, f"{type(config).__name__}.{name}")
        for name, rule in rules.items()
        if rule is not NO_EFFECT
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the values that differ between two descriptions, versions one by one."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if "versions" not in names:
        return sorted(names)
    old, new = before.get("versions") or {}, now.get("versions") or {}
    libraries = {f"version of {name}" for name in {**old, **new} if old.get(name) != new.get(name)}
    return sorted({*names, *libraries} - {"versions"})


def versions(package: str) -> dict[str, str | None]:
    """Return the versions of the tool and of each library of a package, None where not installed.

    A source checkout enters by its version too: after a code change, remove earlier results.
    """
    return {TOOL: __version__, **{name: _version(name) for name in LIBRARIES[package]}}


def plain(description: Mapping[str, Any]) -> Description:
    """Return the description after a JSON round trip; raises TypeError if JSON cannot hold it."""
    values: Description = json.loads(json.dumps(description, sort_keys=True))
    return values


@functools.cache
def rules_of(model: type[BaseModel]) -> dict[str, Counts | _NoEffect | None]:
    """Return the fingerprint rule of each field of a configuration; None for fields by value.

    Raises TypeError for a field without a rule.
    """
    return {name: _rule(model, name, field) for name, field in model.model_fields.items()}


def _rule(model: type[BaseModel], name: str, field: FieldInfo) -> Counts | _NoEffect | None:
    where = f"{model.__name__}.{name}"
    field_markers = {marker for marker in field.metadata if isinstance(marker, (Counts, _NoEffect))}
    leaves = list(_leaves(field.annotation, frozenset(field_markers)))
    markers = {marker for _, leaf_markers in leaves for marker in leaf_markers}
    if len(markers) > 1:
        raise TypeError(f"{where} says in several ways how it counts: give it one type")
    unclear = [
        leaf for leaf, leaf_markers in leaves if not leaf_markers and not _enters_by_value(leaf)
    ]
    if unclear:
        raise TypeError(
            f"{where} holds {unclear[0]} and does not say how it counts in a fingerprint: use a "
            "type of edge.provenance or edge.sources, e.g. Word, InputPath or OutputPath"
        )
    return next(iter(markers), None)


def _leaves(annotation: Any, markers: frozenset[Any]) -> Iterator[tuple[Any, frozenset[Any]]]:
    """Yield the innermost types of an annotation, each with the markers around it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        added_markers = {marker for marker in metadata if isinstance(marker, (Counts, _NoEffect))}
        yield from _leaves(inner, markers | added_markers)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        # Keys enter by value.
        yield from _leaves(get_args(annotation)[1], markers)
    elif origin in _CONTAINERS:
        for part in get_args(annotation):
            if part is not Ellipsis:
                yield from _leaves(part, markers)
    else:
        yield annotation, markers


def _enters_by_value(leaf: Any) -> bool:
    if get_origin(leaf) is Literal:
        return True
    return isinstance(leaf, type) and (leaf in _SCALARS or issubclass(leaf, (enum.Enum, BaseModel)))


def _resolved(value: Any, rule: Counts | _NoEffect | None, where: str) -> Any:
    """Return a value as JSON values; raises TypeError for an unknown kind of value."""
    if isinstance(value, BaseModel):
        return describe(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return {str(key): _resolved(item, rule, where) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_resolved(item, rule, where) for item in value]
    if isinstance(value, (str, Path)):
        if isinstance(rule, Counts):
            content_value = rule.read(value)
            if isinstance(content_value, str):
                return content_value
            return _resolved(content_value, AS_IS, where)
        if isinstance(value, str):
            return value
    raise TypeError(f"{where}: {type(value).__name__} cannot be part of a fingerprint")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
