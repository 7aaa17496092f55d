"""Bundles on disk, opened only if every file matches the manifest.

The manifest has the hash of every other file. Its own hash, `sha256`, is that of its other values
as JSON in UTF-8 with sorted keys and without white space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import golden
from edge.bundle.artifact import Artifact
from edge.bundle.golden import GoldenCase
from edge.bundle.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest
from edge.errors import BundleError, ConfigError, unknown_name
from edge.storage import sha256, size_bytes, write_text


def is_bundle(path: Path) -> bool:
    """Return True if a folder has a manifest, so that a new bundle may replace it."""
    return (path / MANIFEST_FILE).is_file()


@dataclass(frozen=True)
class Bundle:
    """A bundle folder with its checked manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, *, checksums: bool = True) -> Bundle:
        """Open the bundle at `path`.

        Raises BundleError when it is missing or not a bundle, when a file or the manifest is
        missing or altered (`checksums`), or when the manifest points outside the folder or
        contradicts itself.
        """
        values = _read_values(path / MANIFEST_FILE)
        bundle = cls(path, _manifest(path / MANIFEST_FILE, values))
        files = {name: bundle.file(name) for name in bundle._digests()}
        if checksums:
            bundle._check(files, values)
        return bundle

    def _check(self, files: Mapping[str, Path], values: Mapping[str, Any]) -> None:
        """Raise BundleError unless files and manifest have the recorded sizes and hashes."""
        manifest_file = self.path / MANIFEST_FILE
        for name, digest in self._digests().items():
            try:
                unchanged = sha256(files[name]) == digest
            except OSError as error:
                raise BundleError(f"{files[name]} cannot be read: {error.strerror}") from None
            if not unchanged:
                raise _altered(files[name])
        for artifact in self.manifest.artifacts:
            size = size_bytes(files[artifact.file])
            if size != artifact.bytes:
                raise BundleError(
                    f"{manifest_file} gives {artifact.name} {artifact.bytes} bytes, the file has "
                    f"{size}: run edge convert again"
                )
        if self.manifest.sha256 is None:
            raise BundleError(f"{manifest_file} has no checksum of its own: run edge convert again")
        if self.manifest.sha256 != digest_of(values):
            raise _altered(manifest_file)

    def _digests(self) -> dict[str, str]:
        """Return the recorded hash of each file of the bundle except the manifest."""
        manifest, tokenizer = self.manifest, self.manifest.tokenizer
        digests = {artifact.file: artifact.sha256 for artifact in manifest.artifacts}
        digests[tokenizer.file] = tokenizer.sha256
        if tokenizer.vocabulary is not None:
            digests[tokenizer.vocabulary] = tokenizer.vocabulary_sha256 or ""
        digests[manifest.golden.file] = manifest.golden.sha256
        return digests

    def unlisted(self) -> tuple[str, ...]:
        """Return the names in the folder that the manifest does not list; nothing reads them."""
        listed = {MANIFEST_FILE, *(Path(name).parts[0] for name in self._digests())}
        return tuple(sorted(p.name for p in self.path.iterdir() if p.name not in listed))

    def file(self, name: str) -> Path:
        """Return the path of a file of the manifest; raises BundleError if outside or missing."""
        root = self.path.resolve()
        try:
            candidate = (root / name).resolve()
            candidate.exists()
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.path}: {name!r} is no file name ({error})") from None
        if candidate == root or not candidate.is_relative_to(root):
            raise BundleError(f"{self.path}: the manifest points outside the bundle: {name!r}")
        if not candidate.exists():
            raise BundleError(f"{self.path}: {name!r} is missing: run edge convert again")
        if not (candidate.is_file() or candidate.is_dir()):
            raise BundleError(f"{self.path}: {name!r} is not a regular file")
        return candidate

    def artifact_path(self, artifact: Artifact) -> Path:
        return self.file(artifact.file)

    def select(
        self, formats: Sequence[str] = (), precisions: Sequence[str] = ()
    ) -> tuple[Artifact, ...]:
        """Return the artifacts of these formats and precisions, all if empty.

        Raises ConfigError when there are none.
        """
        for kind, names in (("format", formats), ("precision", precisions)):
            available = {str(getattr(a, kind)) for a in self.manifest.artifacts}
            for name in names:
                if name not in available:
                    raise unknown_name(f"{kind} in {self.path}", name, available)
        chosen = tuple(
            a
            for a in self.manifest.artifacts
            if (not formats or a.format in formats)
            and (not precisions or a.precision in precisions)
        )
        if not chosen:
            selection = " and ".join("|".join(names) for names in (formats, precisions) if names)
            raise ConfigError(f"{self.path} holds no artifact with {selection}: see edge inspect")
        return chosen

    def golden_cases(self) -> list[GoldenCase]:
        """Read the golden vectors; raises BundleError when they do not fit the manifest."""
        return golden.load(self.file(self.manifest.golden.file), self.manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write `edge.json` into `folder`; returns the manifest with its own hash."""
    digest = digest_of(manifest.model_dump(mode="json"))
    manifest = manifest.model_copy(update={"sha256": digest})
    write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the hash of a manifest's values without its own `sha256`."""
    rest = {key: value for key, value in values.items() if key != "sha256"}
    text = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _altered(file: Path) -> BundleError:
    return BundleError(
        f"{file} was altered after the bundle was written (checksum differs): "
        "run edge convert again"
    )


def _read_values(file: Path) -> dict[str, Any]:
    path = file.parent
    try:
        if not path.exists():
            raise BundleError(f"{path} does not exist: check the path")
        if not file.is_file():
            raise BundleError(
                f"{path} is not a bundle (no {MANIFEST_FILE}): edge convert writes one"
            )
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} cannot be read: {error}") from None
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise BundleError(f"{file} must hold an object, found {type(values).__name__}")
    return values


def _manifest(file: Path, values: dict[str, Any]) -> Manifest:
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema version {version!r}, this program reads {SCHEMA_VERSION!r}: "
            "run edge convert again"
        )
    try:
        return Manifest.build_json(json.dumps(values), where=str(file))
    except (ConfigError, RecursionError) as error:
        # Keys and values of the file may contain line breaks.
        line = " ".join(str(error).split())
        raise BundleError(f"{line}: run edge convert again") from None
