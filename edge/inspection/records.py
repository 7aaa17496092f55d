"""The results of an inspection."""

from __future__ import annotations

from typing import Any, Literal

from edge.bundle import Artifact
from edge.config import Config
from edge.signature import TensorSpec


class Signature(Config):
    """One way to call a model; a dimension that may vary is a name or a range such as "2..128"."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class StoredTensor(Config):
    """One constant in a model file, which several operators or signatures may share.

    elements: number of values after unpacking.
    role: "weight"; "scale" for quantization parameters; "index" for integers and single numbers,
    such as shapes. layer: "embeddings", "layer 0" ..., "head" or "other".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    size_bytes: int
    role: Literal["weight", "scale", "index"]
    layer: str


class RuntimeCheck(Config):
    """The result of loading the file in one engine."""

    engine: str
    kind: Literal["native", "interpreted"]
    status: Literal["loads", "fails", "unavailable"]
    version: str | None = None
    reason: str | None = None


class ArtifactInspection(Config):
    """One model file.

    version: of the file format. parameters: values of its weights, scales not counted.
    size_bytes_by_layer and size_bytes_by_dtype add up to `size_bytes`; bytes outside of tensors are
    "structure". parameters_by_layer: layer -> data type -> number of weights.
    tensors: the largest ones. manifest: its entry in the bundle's manifest, if in a bundle.
    """

    kind: Literal["artifact"] = "artifact"
    path: str
    format: str
    version: str
    producer: str | None
    size_bytes: int
    parameters: int
    signatures: tuple[Signature, ...]
    operators: dict[str, int]
    size_bytes_by_layer: dict[str, int]
    size_bytes_by_dtype: dict[str, int]
    parameters_by_layer: dict[str, dict[str, int]]
    tensors: tuple[StoredTensor, ...]
    runtimes: tuple[RuntimeCheck, ...]
    manifest: Artifact | None = None


class BundleInspection(Config):
    """A bundle: its manifest, and the size of everything in its folder.

    unlisted: names in the folder that are not in the manifest.
    """

    kind: Literal["bundle"] = "bundle"
    path: str
    size_bytes: int
    manifest: dict[str, Any]
    unlisted: tuple[str, ...] = ()


class FormatCheck(Config):
    """The check of conversion to a format on this machine."""

    format: str
    possible: bool
    reason: str | None = None
    remedy: str | None = None


class CheckpointInspection(Config):
    """A checkpoint, from its configuration and the headers of its weight files.

    parameters_by_layer adds up to `parameters`; tied weights count once, as they are stored.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    path: str
    architecture: str
    model_type: str
    task: str
    problem_type: str | None
    labels: tuple[str, ...] | None
    max_length: int
    vocabulary_size: int | None
    size_bytes: int
    parameters: int
    parameters_by_layer: dict[str, int]
    parameters_by_dtype: dict[str, int]
    formats: tuple[FormatCheck, ...]


Inspection = ArtifactInspection | BundleInspection | CheckpointInspection
