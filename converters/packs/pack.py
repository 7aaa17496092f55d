"""Choose the artifact, build the pack beside its target, and put it there once it is proven."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from converters.packs.config import KINDS, PackConfig
from converters.packs.report import PackReport, Proof
from converters.packs.texts import own_texts
from edge.bundle import Artifact, Bundle
from edge.errors import ConfigError, VerificationError
from edge.registry import look_up
from edge.storage import output_lock, require_space, sha256, size_bytes, staged_file

# kind -> module and class, imported on use.
PACKERS = {
    "mediapipe": "converters.packs.mediapipe:MediapipePacker",
    "ort-text": "converters.packs.ort_text:OrtTextPacker",
}


class Packer(Protocol):
    """Builds one kind. format, engine: the artifact must have passed in this engine."""

    format: str
    engine: str

    def check(self, bundle: Bundle, *, pair: bool) -> None:
        """Refuse a bundle that this kind cannot express; raises ConfigError, by name."""
        ...

    def write(self, bundle: Bundle, artifact: Artifact, config: PackConfig, path: Path) -> Proof:
        """Write the file and run it; raises ConversionError, EngineError or VerificationError."""
        ...


def pack(config: PackConfig) -> PackReport:
    """Write the file `config.output`, once it has been run and gives the bundle's answers.

    Raises BundleError or ConfigError for a bundle that cannot be packed this way, and
    VerificationError for a pack that answers otherwise; nothing is written then.
    """
    with output_lock(config.output):
        if config.output.is_dir():
            raise ConfigError(f"{config.output} is a folder: name a {KINDS[config.kind]} file")
        return _pack(config)


def _pack(config: PackConfig) -> PackReport:
    bundle = Bundle.open(config.bundle)
    packer = get_packer(config.kind)
    pair = takes_pairs(bundle) if config.pair is None else config.pair
    config = config.model_copy(update={"pair": pair})
    packer.check(bundle, pair=pair)
    artifact = _artifact(bundle, packer, config)
    require_space(config.output, 2 * artifact.bytes)
    with staged_file(config.output) as path:
        proof = packer.write(bundle, artifact, config, path)
        _require_passed(config, proof)
        return _report(config, artifact, path, proof)


def get_packer(kind: str) -> Packer:
    """The packer of a kind."""
    packer: Packer = look_up("pack", kind, PACKERS)()
    return packer


def takes_pairs(bundle: Bundle) -> bool:
    """Whether the bundle's golden vectors hold text pairs of the user's own data."""
    return any(pair is not None for _, pair in own_texts(bundle))


def _artifact(bundle: Bundle, packer: Packer, config: PackConfig) -> Artifact:
    """The first artifact of the format and precision that passed in the engine packs run in."""
    for artifact in bundle.select((packer.format,), (config.precision.value,)):
        if packer.engine in artifact.runtimes:
            return artifact
    raise ConfigError(
        f"{bundle.path}: {packer.format}-{config.precision.value} was not proven in "
        f"{packer.engine}: run edge convert with --verify"
    )


def _require_passed(config: PackConfig, proof: Proof) -> None:
    for result in proof.verifications:
        if result.status == "failed":
            raise VerificationError(
                f"the {config.kind} pack failed in {result.engine}: {result.reason}"
            )


def _report(config: PackConfig, artifact: Artifact, path: Path, proof: Proof) -> PackReport:
    return PackReport(
        kind=config.kind,
        file=config.output,
        bytes=size_bytes(path),
        sha256=sha256(path),
        artifact=artifact.name,
        sequence_length=proof.sequence_length,
        inputs=proof.inputs,
        outputs=proof.outputs,
        verifications=proof.verifications,
        texts=proof.texts,
        different=proof.different,
    )
