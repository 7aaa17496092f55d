"""What an inspection reports, as data."""

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
    """One constant in a model file; stored once however many operators or signatures use it.

    elements: how many values it stands for, which packed weights store in fewer bytes.
    role: "weight"; "scale" for what quantisation adds; "index" for integers and single numbers
    that describe shapes and not a model. layer: "embeddings", "layer 0" ..., "head" or "other".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    size_bytes: int
    role: Literal["weight", "scale", "index"]
    layer: str


class RuntimeCheck(Config):
    """Whether one engine opened the file here. status "unavailable": the engine is not here."""

    engine: str
    kind: Literal["native", "interpreted"]
    status: Literal["loads", "fails", "unavailable"]
    version: str | None = None
    reason: str | None = None


class ArtifactInspection(Config):
    """One model file.

    version: of the file format. parameters: values of its weights, scales not counted.
    size_bytes_by_layer and size_bytes_by_dtype add up to `size_bytes`: what is not a tensor is
    "structure". parameters_by_layer: layer -> data type -> how many weights are stored in it.
    tensors: the largest ones. manifest: what its bundle says, if it is in one.
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

    unlisted: what lies in the folder and does not belong to the bundle.
    """

    kind: Literal["bundle"] = "bundle"
    path: str
    size_bytes: int
    manifest: dict[str, Any]
    unlisted: tuple[str, ...] = ()


class FormatCheck(Config):
    """Whether conversion to a format can be tried here."""

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
