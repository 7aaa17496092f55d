"""`edge inspect`: what is in a bundle, a model file or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    TrustRemoteCode,
    number,
    print_json,
    print_table,
)
from edge.console import human_bytes, show

if TYPE_CHECKING:
    from edge.bundle import Artifact
    from edge.inspection import ArtifactInspection, BundleInspection, CheckpointInspection
    from edge.signature import TensorSpec


def inspect(
    target: Annotated[
        Path,
        typer.Argument(help="Bundle, checkpoint folder, or .onnx, .tflite, .mlpackage file."),
    ],
    artifact: Annotated[
        str | None, typer.Option(help="Look into one artifact of a bundle, e.g. onnx-int8.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="How many of the largest tensors to list.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task, if a checkpoint does not say what it is for.")
    ] = None,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: AsJson = False,
) -> None:
    """Show what a bundle, a model file or a checkpoint holds, and what can run it here."""
    from edge.inspection import DEFAULT_TOP, inspect_target

    count = DEFAULT_TOP if top is None else top
    found = inspect_target(
        target,
        artifact=artifact,
        top=count,
        task=task,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    if json:
        print_json(found.model_dump(mode="json"))
    elif found.kind == "artifact":
        _print_artifact(found)
    elif found.kind == "bundle":
        _print_bundle(found)
    else:
        _print_checkpoint(found)


def _print_artifact(found: ArtifactInspection) -> None:
    _section(
        found.path,
        ("field", "value"),
        (
            ("format", found.format),
            ("version", found.version),
            ("written by", found.producer or "-"),
            ("size", human_bytes(found.size_bytes)),
            ("parameters", f"{found.parameters:,}"),
        ),
    )
    _section(
        "inputs and outputs",
        ("signature", "", "name", "type", "shape"),
        (
            (signature.name, side, spec.name, spec.dtype, _shape(spec))
            for signature in found.signatures
            for side, specs in (("input", signature.inputs), ("output", signature.outputs))
            for spec in specs
        ),
    )
    _section("operators", ("operator", "count"), ((k, str(n)) for k, n in found.operators.items()))
    _section(
        "by layer",
        ("layer", "size", "share", "weights"),
        (
            (*row, _widths(found.parameters_by_layer.get(row[0], {})))
            for row in _shares(found.size_bytes_by_layer)
        ),
    )
    _section("by data type", ("type", "size", "share"), _shares(found.size_bytes_by_dtype))
    _section(
        "largest tensors",
        ("tensor", "type", "shape", "size", "layer"),
        (
            (t.name, t.dtype, "x".join(map(str, t.shape)), human_bytes(t.size_bytes), t.layer)
            for t in found.tensors
        ),
    )
    _section(
        "engines here",
        ("engine", "kind", "status", "version", "reason"),
        ((r.engine, r.kind, r.status, r.version or "-", r.reason or "") for r in found.runtimes),
    )


def _print_bundle(found: BundleInspection) -> None:
    from edge.bundle import Artifact

    manifest = found.manifest
    artifacts = [Artifact.model_validate(values) for values in manifest["artifacts"]]
    source = manifest["source"]
    _section(
        found.path,
        ("field", "value"),
        (
            ("task", manifest["task"]),
            ("labels", _names(manifest["labels"])),
            ("source", source["checkpoint"]),
            ("architecture", source["architecture"]),
            ("parameters", f"{source['parameters']:,}"),
            ("longest input", f"{manifest['max_length']} tokens"),
            ("golden vectors", str(manifest["golden"]["samples"])),
            ("size", human_bytes(found.size_bytes)),
            ("written by", f"{manifest['tool']['name']} {manifest['tool']['version']}"),
            ("written at", manifest["created_utc"]),
            *((("not of the bundle", ", ".join(found.unlisted)),) if found.unlisted else ()),
        ),
    )
    _section(
        "artifacts",
        ("artifact", "size", "lengths", "engine", "status", "rel. error", "agreement"),
        (row for artifact in artifacts for row in _artifact_rows(artifact)),
    )
    print_wider(artifacts)


def _artifact_rows(artifact: Artifact) -> Iterable[tuple[str, ...]]:
    """One row for each engine an artifact was tried in."""
    lengths = ", ".join(map(str, artifact.sequence_lengths))
    common = (
        artifact.name,
        human_bytes(artifact.bytes),
        f"up to {lengths}" if artifact.dynamic_sequence else lengths,
    )
    if not artifact.verifications:
        yield (*common, "-", "not verified", "-", "-")
    for result in artifact.verifications:
        reason = f": {result.reason}" if result.reason else ""
        yield (
            *common,
            result.engine,
            f"{artifact.verdict(result)}{reason}",
            number(result.max_relative_error, ".1e"),
            result.agreement_text,
        )


def print_wider(artifacts: Sequence[Artifact]) -> None:
    """What was kept wider, and the metric it was kept wider for; nothing where nothing was."""
    rows = [
        (
            artifact.name,
            kept.layer,
            kept.precision,
            "-" if kept.size_bytes is None else human_bytes(kept.size_bytes),
        )
        for artifact in artifacts
        for kept in artifact.kept_wider
    ]
    if rows:
        _section("kept wider", ("artifact", "layer", "precision", "cost"), rows)
    budgets = [(a.name, a.budget) for a in artifacts if a.budget is not None]
    if budgets:
        _section(
            "metric budget",
            ("artifact", "metric", "checkpoint", "its own", "may lose", "rows"),
            (
                (
                    name,
                    budget.metric,
                    number(budget.checkpoint),
                    number(budget.artifact),
                    f"{budget.max_drop:g}",
                    str(budget.samples),
                )
                for name, budget in budgets
            ),
        )


def _print_checkpoint(found: CheckpointInspection) -> None:
    _section(
        found.path,
        ("field", "value"),
        (
            ("architecture", f"{found.architecture} ({found.model_type})"),
            ("task", found.task),
            ("labels", _names(found.labels)),
            ("longest input", f"{found.max_length} tokens"),
            ("vocabulary", "-" if found.vocabulary_size is None else f"{found.vocabulary_size:,}"),
            ("parameters", f"{found.parameters:,}"),
            ("stored as", ", ".join(found.parameters_by_dtype)),
            ("size", human_bytes(found.size_bytes)),
        ),
    )
    total = max(found.parameters, 1)
    _section(
        "parameters",
        ("layer", "parameters", "share"),
        (
            (name, f"{count:,}", f"{count / total:.1%}")
            for name, count in found.parameters_by_layer.items()
        ),
    )
    _section(
        "formats",
        ("format", "can be tried here", "reason", "to add it"),
        (
            (f.format, "yes" if f.possible else "no", f.reason or "", f.remedy or "")
            for f in found.formats
        ),
    )


def _section(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A titled table, apart from the one before."""
    show(f"{title}:")
    print_table("", header, rows)
    show("")


def _shares(sizes: Mapping[str, int]) -> Iterable[tuple[str, str, str]]:
    total = max(sum(sizes.values()), 1)
    return ((name, human_bytes(size), f"{size / total:.1%}") for name, size in sizes.items())


def _widths(counts: Mapping[str, int]) -> str:
    """Data types of a layer's weights with their share: `int8 98.9%, float32 1.1%`."""
    total = max(sum(counts.values()), 1)
    return ", ".join(f"{dtype} {count / total:.1%}" for dtype, count in counts.items()) or "-"


def _shape(spec: TensorSpec) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


def _names(labels: Sequence[str] | None) -> str:
    return ", ".join(labels) if labels else "-"
