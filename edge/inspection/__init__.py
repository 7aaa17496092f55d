"""Inspection of a bundle, a model file or a checkpoint."""

from __future__ import annotations

from pathlib import Path

from edge.bundle import MANIFEST_FILE, is_bundle
from edge.errors import BundleError, ConfigError
from edge.formats import FORMATS
from edge.inspection.artifact import DEFAULT_TOP, format_of, inspect_artifact
from edge.inspection.folders import inspect_bundle, inspect_bundle_artifact, inspect_checkpoint
from edge.inspection.records import (
    ArtifactInspection,
    BundleInspection,
    CheckpointInspection,
    FormatCheck,
    Inspection,
    RuntimeCheck,
    Signature,
    StoredTensor,
)

__all__ = [
    "DEFAULT_TOP",
    "ArtifactInspection",
    "BundleInspection",
    "CheckpointInspection",
    "FormatCheck",
    "Inspection",
    "RuntimeCheck",
    "Signature",
    "StoredTensor",
    "inspect_artifact",
    "inspect_bundle",
    "inspect_checkpoint",
    "inspect_target",
]


def inspect_target(
    target: Path,
    *,
    artifact: str | None = None,
    top: int = DEFAULT_TOP,
    task: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Inspection:
    """Describe whatever `target` is: a bundle, a model file or a checkpoint folder.

    artifact: describe this artifact of a bundle, such as "onnx-int8". top: number of tensors to
    list, the largest first. The other options apply to a checkpoint, as in `edge convert`. Raises a
    UserError when `target` is none of these, or does not have the format of its extension.
    """
    if not target.exists():
        raise BundleError(f"{target} does not exist: check the path")
    if artifact is not None:
        if not is_bundle(target):
            raise ConfigError(f"--artifact chooses from a bundle, and {target} is not one")
        return inspect_bundle_artifact(target, artifact, top=top)
    if format_of(target) is not None:
        return inspect_artifact(target, top=top)
    if is_bundle(target):
        return inspect_bundle(target)
    if (target / "config.json").is_file():
        return inspect_checkpoint(
            target, task=task, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
    suffixes = ", ".join(f.suffix for f in FORMATS.values())
    raise BundleError(
        f"{target} is neither a bundle (with {MANIFEST_FILE}), a checkpoint (with config.json) "
        f"nor a model file ({suffixes})"
    )
