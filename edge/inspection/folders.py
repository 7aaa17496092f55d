"""Inspection of bundles and checkpoints, without running them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edge.bundle import Artifact, Bundle
from edge.checkpoint import (
    Checkpoint,
    load_model,
    load_tokenizer,
    max_length,
    open_checkpoint,
)
from edge.console import hush
from edge.doctor import check_converter
from edge.errors import CheckpointError, EdgeError, unknown_name
from edge.formats import FORMATS
from edge.inspection.artifact import inspect_artifact
from edge.inspection.layers import in_order, layer_of
from edge.inspection.records import (
    ArtifactInspection,
    BundleInspection,
    CheckpointInspection,
    FormatCheck,
)
from edge.storage import size_bytes

# Safetensors' type name -> plain name.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def inspect_bundle(path: Path) -> BundleInspection:
    """Return the manifest of a bundle; raises BundleError when it is damaged."""
    bundle = Bundle.open(path)
    bundle.golden_cases()
    return BundleInspection(
        path=str(path),
        size_bytes=size_bytes(path),
        manifest=bundle.manifest.model_dump(mode="json"),
        unlisted=bundle.unlisted(),
    )


def inspect_bundle_artifact(path: Path, name: str, *, top: int) -> ArtifactInspection:
    """Inspect an artifact of a bundle by its name, e.g. "onnx-int8"; ConfigError if unknown."""
    bundle = Bundle.open(path)
    artifacts: dict[str, Artifact] = {a.name: a for a in bundle.manifest.artifacts}
    if name not in artifacts:
        raise unknown_name(f"artifact in {path}", name, artifacts)
    inspection = inspect_artifact(bundle.artifact_path(artifacts[name]), top=top)
    return inspection.model_copy(update={"manifest": artifacts[name]})


def inspect_checkpoint(
    path: Path,
    *,
    task: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> CheckpointInspection:
    """Inspect a checkpoint by its configuration and weight headers; raises CheckpointError.

    Pickled weights have no headers and are loaded, with `allow_pickle` only.
    """
    with hush():
        checkpoint = open_checkpoint(
            path, task=task, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
        tokenizer = load_tokenizer(checkpoint)
        by_layer, by_dtype = _parameters(checkpoint)
    architectures = checkpoint.config.architectures or []
    return CheckpointInspection(
        path=str(path),
        architecture=next(iter(architectures), "unknown"),
        model_type=checkpoint.config.model_type,
        task=checkpoint.task.name,
        problem_type=checkpoint.task.problem_type,
        labels=checkpoint.labels,
        max_length=max_length(checkpoint, tokenizer),
        vocabulary_size=getattr(checkpoint.config, "vocab_size", None),
        size_bytes=size_bytes(path),
        parameters=sum(by_layer.values()),
        parameters_by_layer=in_order(by_layer),
        parameters_by_dtype=dict(by_dtype.most_common()),
        formats=tuple(_format(name, checkpoint, tokenizer) for name in FORMATS),
    )


def _parameters(checkpoint: Checkpoint) -> tuple[Counter[str], Counter[str]]:
    """Return the number of parameters by layer and by data type."""
    by_layer: Counter[str] = Counter()
    by_dtype: Counter[str] = Counter()
    files = sorted(checkpoint.path.glob("*.safetensors"))
    for name, dtype, count in _headers(files) if files else _loaded(checkpoint):
        by_layer[layer_of(name)] += count
        by_dtype[dtype] += count
    return by_layer, by_dtype


def _headers(files: list[Path]) -> Iterator[tuple[str, str, int]]:
    """Yield name, data type and number of values of each tensor in safetensors files."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in sorted(tensors.keys()):
                    tensor = tensors.get_slice(name)
                    dtype = _DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
                    yield name, dtype, math.prod(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is corrupted ({error}): save it again") from None


def _loaded(checkpoint: Checkpoint) -> Iterator[tuple[str, str, int]]:
    """Yield the same as `_headers` for pickled weights, which must be loaded."""
    for name, parameter in load_model(checkpoint).named_parameters():
        yield name, str(parameter.dtype).removeprefix("torch."), parameter.numel()


def _format(name: str, checkpoint: Checkpoint, tokenizer: object) -> FormatCheck:
    """Check conversion to a format: the tokenizer is supported and the converter available."""
    from edge.tokenization import describe

    try:
        describe(tokenizer, folder=checkpoint.path)
    except EdgeError as error:
        return FormatCheck(format=name, possible=False, reason=str(error))
    converter = check_converter(name)
    return FormatCheck(
        format=name, possible=converter.works, reason=converter.reason, remedy=converter.remedy
    )
