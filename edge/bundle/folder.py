"""A bundle on disk: opened only when everything in it is what its manifest says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import golden
from edge.bundle.golden import GoldenCase
from edge.bundle.manifest import MANIFEST_FILE, SCHEMA_VERSION, Artifact, Manifest
from edge.errors import BundleError, ConfigError, unknown_name
from edge.storage import sha256, write_text


def is_bundle(path: Path) -> bool:
    """Whether a folder carries a manifest, and may therefore be replaced by a new bundle."""
    return (path / MANIFEST_FILE).is_file()


@dataclass(frozen=True)
class Bundle:
    """A folder and its checked manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, *, checksums: bool = True) -> Bundle:
        """Open the bundle at `path`.

        Raises BundleError when it is missing or not a bundle, when a file is missing or altered
        (`checksums`), or when the manifest points outside the folder.
        """
        manifest = _read_manifest(path)
        bundle = cls(path, manifest)
        expected = [(a.file, a.sha256) for a in manifest.artifacts]
        expected.append((manifest.tokenizer.file, manifest.tokenizer.sha256))
        expected.append((manifest.golden.file, manifest.golden.sha256))
        for name, digest in expected:
            file = bundle.file(name)
            if checksums and sha256(file) != digest:
                raise BundleError(
                    f"{file} was altered after the bundle was written (checksum differs): "
                    "run edge convert again"
                )
        return bundle

    def file(self, name: str) -> Path:
        """The path of a file named in the manifest; raises BundleError if outside or missing."""
        root = self.path.resolve()
        try:
            candidate = (root / name).resolve()
            candidate.exists()
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.path}: {name!r} is no file name ({error})") from None
        if candidate == root or not candidate.is_relative_to(root):
            raise BundleError(f"{self.path}: the manifest points outside the bundle: '{name}'")
        if not candidate.exists():
            raise BundleError(f"{self.path}: '{name}' is missing: run edge convert again")
        return candidate

    def artifact_path(self, artifact: Artifact) -> Path:
        return self.file(artifact.file)

    def select(
        self, formats: Sequence[str] = (), precisions: Sequence[str] = ()
    ) -> tuple[Artifact, ...]:
        """The artifacts of these formats and precisions (all when empty); ConfigError if none."""
        for kind, names in (("format", formats), ("precision", precisions)):
            held = {str(getattr(a, kind)) for a in self.manifest.artifacts}
            for name in names:
                if name not in held:
                    raise unknown_name(f"{kind} in {self.path}", name, held)
        chosen = tuple(
            a
            for a in self.manifest.artifacts
            if (not formats or a.format in formats)
            and (not precisions or a.precision in precisions)
        )
        if not chosen:
            wanted = " and ".join("|".join(names) for names in (formats, precisions) if names)
            raise ConfigError(f"{self.path} holds no artifact with {wanted}: see edge inspect")
        return chosen

    def golden_cases(self) -> list[GoldenCase]:
        return golden.load(self.file(self.manifest.golden.file))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `edge.json` into `folder`."""
    write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST_FILE
    if not path.exists():
        raise BundleError(f"{path} does not exist: check the path")
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle (no {MANIFEST_FILE}): edge convert writes one")
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise BundleError(f"{file} must hold an object, found {type(values).__name__}")
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema version {version!r}, this program reads {SCHEMA_VERSION!r}: "
            "run edge convert again"
        )
    try:
        return Manifest.build(values, where=str(file))
    except ConfigError as error:
        raise BundleError(str(error)) from None
