"""Which models a comparison times, in which engine, on which inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark.config import DEFAULT_LENGTH, Baseline, BenchmarkConfig
from benchmark.devices import Job
from benchmark.inputs import InputSet, adapted, prepare
from benchmark.schema import Model
from benchmark.wording import ENGINE_TITLES
from edge.bundle import Artifact, Bundle, Verification
from edge.engines import get_engine
from edge.errors import ConfigError
from edge.formats import FORMATS

Role = Literal["artifact", "baseline"]
_REFERENCE_ENGINE = "pytorch"
_FULL_PRECISION = "fp32"


@dataclass(frozen=True, eq=False)
class Cell:
    """One model in one engine.

    version: the engine's. reason: why it cannot be timed here, with the remedy; None when it can.
    """

    role: Role
    label: str
    model: Model
    engine: str
    version: str | None
    path: Path
    inputs: InputSet
    reason: str | None = None
    verification: Verification | None = None

    def job(self, threads: int) -> Job:
        return Job(self.label, self.engine, self.path, threads, self.inputs.arrays)


@dataclass(frozen=True)
class Plan:
    """All cells of a comparison at one length in tokens."""

    cells: tuple[Cell, ...]
    length: int

    @property
    def timed(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.reason is None)


def make_plan(config: BenchmarkConfig) -> Plan:
    """Open the bundles and decide what is timed.

    Raises BundleError, CheckpointError, DataError or ConfigError when the request cannot be met.
    """
    chosen = _chosen(config, checksums=True)
    length = _length(config.seq_length, [artifact for _, artifact in chosen])
    inputs: dict[Path, InputSet] = {}
    cells = []
    names = _names([bundle for bundle, _ in chosen])
    for bundle, artifact in chosen:
        if bundle.path not in inputs:
            inputs[bundle.path] = prepare(
                bundle, length, data=config.data, columns=config.columns, seed=config.seed
            )
        cells.append(_artifact_cell(bundle, artifact, names, inputs[bundle.path]))
    timed = [cell for cell in cells if cell.reason is None]
    if config.baseline is not None and timed:
        formats = list(dict.fromkeys(cell.model.format for cell in timed))
        cells += _baseline_cells(config.baseline, formats, length, timed[0].inputs)
    return Plan(tuple(cells), length)


def common_length(config: BenchmarkConfig) -> int:
    """The length in tokens that a comparison will use: what its baseline has to accept.

    Raises ConfigError when the artifacts accept no common length, or not the one asked for.
    """
    return _length(config.seq_length, [artifact for _, artifact in _chosen(config)])


def timed_formats(config: BenchmarkConfig) -> tuple[str, ...]:
    """The formats among the chosen artifacts that can be timed here."""
    found = dict.fromkeys(artifact.format for _, artifact in _chosen(config))
    return tuple(name for name in found if _obstacle(name) is None)


def _chosen(config: BenchmarkConfig, *, checksums: bool = False) -> list[tuple[Bundle, Artifact]]:
    paths = dict.fromkeys(config.bundles)
    bundles = [Bundle.open(path, checksums=checksums) for path in paths]
    return [(b, a) for b in bundles for a in b.select(config.format, config.precision)]


def _names(bundles: Sequence[Bundle]) -> dict[Path, str]:
    """A short name for each bundle; its whole path where folders are called the same."""
    paths = list(dict.fromkeys(bundle.path for bundle in bundles))
    short = [path.resolve().name for path in paths]
    return {p: n if short.count(n) == 1 else str(p) for p, n in zip(paths, short, strict=True)}


def _obstacle(format_name: str) -> str | None:
    """Why a format cannot be timed here, and what would change that."""
    name = FORMATS[format_name].runtimes[0]
    found = get_engine(name).availability()
    return None if found.available else f"{found.reason} ({found.remedy})"


def _length(wanted: int | None, artifacts: Sequence[Artifact]) -> int:
    # Artifacts that cannot be timed anyway must not decide, unless there are no others.
    timed = [a for a in artifacts if _obstacle(a.format) is None] or list(artifacts)
    if wanted is not None:
        for artifact in timed:
            if not _accepts(artifact, wanted):
                raise ConfigError(
                    f"{artifact.name} does not accept {wanted} tokens, it accepts "
                    f"{_accepted(artifact)}: choose another --seq-length, or leave the artifact "
                    "out with --format or --precision"
                )
        return wanted
    # Every length that could be the answer: those that some artifact names, and the default.
    options = {DEFAULT_LENGTH, *(n for a in timed for n in a.sequence_lengths)}
    common = sorted(n for n in options if all(_accepts(a, n) for a in timed))
    if not common:
        lengths = "; ".join(f"{a.name}: {_accepted(a)}" for a in timed)
        raise ConfigError(
            f"no sequence length fits all artifacts ({lengths}): choose some with --format or "
            "--precision"
        )
    short = [n for n in common if n <= DEFAULT_LENGTH]
    return short[-1] if short else common[0]


def _accepts(artifact: Artifact, length: int) -> bool:
    if artifact.dynamic_sequence:
        return length <= artifact.sequence_lengths[-1]
    return length in artifact.sequence_lengths


def _accepted(artifact: Artifact) -> str:
    if artifact.dynamic_sequence:
        return f"up to {artifact.sequence_lengths[-1]}"
    return " or ".join(str(n) for n in artifact.sequence_lengths)


def _artifact_cell(
    bundle: Bundle, artifact: Artifact, names: dict[Path, str], inputs: InputSet
) -> Cell:
    name = names[bundle.path]
    engine = artifact.target_runtimes[0]
    return Cell(
        role="artifact",
        label=artifact.name if len(names) == 1 else f"{name}/{artifact.name}",
        model=_model(f"{name}/{artifact.name}", bundle, artifact),
        engine=engine,
        version=get_engine(engine).availability().version,
        path=bundle.artifact_path(artifact),
        inputs=adapted(inputs, [spec.name for spec in artifact.inputs]),
        reason=_obstacle(artifact.format),
        verification=artifact.verification,
    )


def _model(name: str, bundle: Bundle, artifact: Artifact) -> Model:
    source = bundle.manifest.source
    return Model(
        id=name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        params=source.parameters,
        arch=source.architecture,
    )


def _baseline_cells(
    baseline: Baseline, formats: Iterable[str], length: int, inputs: InputSet
) -> list[Cell]:
    cells = []
    if baseline.checkpoint is not None:
        cells.append(_checkpoint_cell(baseline.name, baseline.checkpoint, length, inputs))
    if baseline.bundle is not None:
        bundle = Bundle.open(baseline.bundle)
        for artifact in bundle.manifest.artifacts:
            if artifact.format in formats and artifact.precision == _FULL_PRECISION:
                cells.append(_baseline_artifact(baseline.name, bundle, artifact, length, inputs))
    return cells


def _checkpoint_cell(name: str, path: Path, length: int, inputs: InputSet) -> Cell:
    from edge.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    positions = getattr(config, "max_position_embeddings", None) or length
    if length > positions:
        raise ConfigError(
            f"the baseline {name} accepts up to {positions} tokens, not {length}: "
            f"use --seq-length {positions} or less"
        )
    types = getattr(config, "type_vocab_size", 0)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    found = get_engine(_REFERENCE_ENGINE).availability()
    weights = sorted(checkpoint.path.glob("*.safetensors"))
    return Cell(
        role="baseline",
        label=f"{name} in {ENGINE_TITLES[_REFERENCE_ENGINE]}",
        model=Model(
            id=name,
            format="checkpoint",
            precision=_FULL_PRECISION,
            sha256=checkpoint.weights_sha256,
            bytes=sum(file.stat().st_size for file in weights),
            params=_parameters(weights),
            arch=str(config.model_type),
        ),
        engine=_REFERENCE_ENGINE,
        version=found.version,
        path=checkpoint.path,
        inputs=adapted(inputs, names, vocabulary=config.vocab_size, types=types),
        reason=None if found.available else f"{found.reason} ({found.remedy})",
    )


def _baseline_artifact(
    name: str, bundle: Bundle, artifact: Artifact, length: int, inputs: InputSet
) -> Cell:
    engine = artifact.target_runtimes[0]
    reason = None
    if not _accepts(artifact, length):
        reason = f"it accepts {_accepted(artifact)} tokens, not {length}"
    names = [spec.name for spec in artifact.inputs]
    vocabulary = bundle.manifest.tokenizer.vocabulary_size
    return Cell(
        role="baseline",
        label=f"{name} in {ENGINE_TITLES[engine]}",
        model=_model(name, bundle, artifact),
        engine=engine,
        version=get_engine(engine).availability().version,
        path=bundle.artifact_path(artifact),
        inputs=adapted(inputs, names, vocabulary=vocabulary),
        reason=reason,
    )


def _parameters(weights: Iterable[Path]) -> int:
    """Parameters in safetensors files, from their headers alone."""
    from safetensors import safe_open

    count = 0
    for file in weights:
        with safe_open(file, framework="numpy") as tensors:
            names = tensors.keys()
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return count
