"""The folder that `edge convert` writes and everything else reads."""

from edge.bundle.artifact import Artifact, Budget, KeptWider, Verification
from edge.bundle.folder import Bundle, is_bundle, write_manifest
from edge.bundle.golden import GoldenCase
from edge.bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Embedding,
    Golden,
    Manifest,
    Source,
    TokenizerInfo,
    Tool,
    json_schema,
)

__all__ = [
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "TOKENIZER_FILE",
    "Artifact",
    "Budget",
    "Bundle",
    "Embedding",
    "Golden",
    "GoldenCase",
    "KeptWider",
    "Manifest",
    "Source",
    "TokenizerInfo",
    "Tool",
    "Verification",
    "is_bundle",
    "json_schema",
    "write_manifest",
]
