"""One model file: what is in it, where its bytes are, and which engines open it here."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

from edge.errors import BundleError
from edge.formats import FORMATS
from edge.inspection.contents import Contents
from edge.inspection.layers import STRUCTURE, in_order
from edge.inspection.loading import try_engines
from edge.inspection.records import ArtifactInspection
from edge.storage import size_bytes

DEFAULT_TOP = 10
# format -> module whose `read` takes a file apart, imported on use.
READERS = {name: f"edge.inspection.{name}" for name in FORMATS}


def format_of(path: Path) -> str | None:
    """The format a file's name claims."""
    return next((f.name for f in FORMATS.values() if path.suffix.lower() == f.suffix), None)


def inspect_artifact(path: Path, *, top: int = DEFAULT_TOP) -> ArtifactInspection:
    """Take a model file apart and open it in every engine of its format.

    top: how many tensors to list, the largest first. Raises BundleError, one line, when the file
    is missing or is not what its name says; an engine that fails is part of the answer.
    """
    format_name = format_of(path)
    if format_name is None:
        suffixes = ", ".join(f.suffix for f in FORMATS.values())
        raise BundleError(f"{path} is not a model file: its name must end in {suffixes}")
    _check_kind(path, format_name)
    contents: Contents = importlib.import_module(READERS[format_name]).read(path)
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
    """Layer -> data type -> weights stored in it, the most first."""
    found: dict[str, Counter[str]] = {}
    for tensor in contents.tensors:
        if tensor.role == "weight":
            found.setdefault(tensor.layer, Counter())[tensor.dtype] += tensor.elements
    ordered = in_order({layer: counts.total() for layer, counts in found.items()})
    return {layer: dict(found[layer].most_common()) for layer in ordered}


def _check_kind(path: Path, format_name: str) -> None:
    """Core ML's files are folders, the others are not."""
    if not path.exists():
        raise BundleError(f"{path} does not exist: check the path")
    if path.is_dir() != (format_name == "coreml"):
        found, expected = ("folder", "file") if path.is_dir() else ("file", "folder")
        title = FORMATS[format_name].title
        raise BundleError(f"{path} is a {found}: {title}'s {path.suffix} is a {expected}")


def _sizes(contents: Contents, attribute: str, total: int) -> dict[str, int]:
    """Bytes by an attribute of the tensors, largest first; the rest of the file at the end."""
    sizes: Counter[str] = Counter()
    for tensor in contents.tensors:
        sizes[getattr(tensor, attribute)] += tensor.size_bytes
    found = dict(sizes.most_common())
    return {**found, STRUCTURE: total - sum(found.values())}
