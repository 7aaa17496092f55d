"""Inspection of one model file: contents, sizes by layer and type, and engines that load it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edge.errors import BundleError
from edge.formats import FORMATS
from edge.inspection.contents import Contents
from edge.inspection.layers import STRUCTURE, in_order
from edge.inspection.loading import try_engines
from edge.inspection.records import ArtifactInspection
from edge.registry import look_up
from edge.storage import size_bytes

DEFAULT_TOP = 10
# Format -> function that parses a file, imported on use.
READERS = {name: f"edge.inspection.{name}:read" for name in FORMATS}


def format_of(path: Path) -> str | None:
    """Return the format according to a file's extension, or None."""
    return next((f.name for f in FORMATS.values() if path.suffix.lower() == f.suffix), None)


def inspect_artifact(path: Path, *, top: int = DEFAULT_TOP) -> ArtifactInspection:
    """Parse a model file and load it in every engine of its format.

    top: number of tensors to list, the largest first. Raises BundleError, one line, when the file
    is missing or does not have the format of its extension; a failing engine is part of the result.
    """
    format_name = format_of(path)
    if format_name is None:
        suffixes = ", ".join(f.suffix for f in FORMATS.values())
        raise BundleError(f"{path} is not a model file: its name must end in {suffixes}")
    _check_kind(path, format_name)
    contents: Contents = look_up("format", format_name, READERS)(path)
    total = size_bytes(path)
    return ArtifactInspection(
        path=str(path),
        format=format_name,
        version=contents.version,
        producer=contents.producer,
        size_bytes=total,
        parameters=sum(t.elements for t in contents.tensors if t.role == "weight"),
        signatures=contents.signatures,
        operators=dict(contents.operators.most_common()),
        size_bytes_by_layer=in_order(_sizes(contents, "layer", total)),
        size_bytes_by_dtype=_sizes(contents, "dtype", total),
        parameters_by_layer=_widths(contents),
        tensors=tuple(sorted(contents.tensors, key=lambda t: (-t.size_bytes, t.name))[:top]),
        runtimes=try_engines(path, format_name),
    )


def _widths(contents: Contents) -> dict[str, dict[str, int]]:
    """Return layer -> data type -> number of weights, the most common type first."""
    counts_by_layer: dict[str, Counter[str]] = {}
    for tensor in contents.tensors:
        if tensor.role == "weight":
            counts_by_layer.setdefault(tensor.layer, Counter())[tensor.dtype] += tensor.elements
    ordered = in_order({layer: counts.total() for layer, counts in counts_by_layer.items()})
    return {layer: dict(counts_by_layer[layer].most_common()) for layer in ordered}


def _check_kind(path: Path, format_name: str) -> None:
    """Raise BundleError unless `path` is a folder for Core ML, or a file for other formats."""
    if not path.exists():
        raise BundleError(f"{path} does not exist: check the path")
    if path.is_dir() != (format_name == "coreml"):
        actual, expected = ("folder", "file") if path.is_dir() else ("file", "folder")
        title = FORMATS[format_name].title
        raise BundleError(f"{path} is a {actual}: {title}'s {path.suffix} is a {expected}")


def _sizes(contents: Contents, attribute: str, total: int) -> dict[str, int]:
    """Return bytes by an attribute of the tensors, largest first, then the rest of the file."""
    sizes: Counter[str] = Counter()
    for tensor in contents.tensors:
        sizes[getattr(tensor, attribute)] += tensor.size_bytes
    return {**dict(sizes.most_common()), STRUCTURE: total - sizes.total()}
