"""Schema of `edge.json`, the manifest of a bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from edge.bundle.artifact import Artifact
from edge.bundle.fields import (
    Count,
    Index,
    Name,
    Record,
    RelativePath,
    Sha256,
    check_input_names,
    check_once,
    sha256,
)
from edge.errors import unknown_name
from edge.signature import TASK_OUTPUTS, TensorSpec

SCHEMA_VERSION: Literal["1"] = "1"
MANIFEST_FILE = "edge.json"
GOLDEN_FILE = "golden.json"
TOKENIZER_FILE = "tokenizer.json"
_PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

Activation = Literal["softmax", "sigmoid", "none"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class Source(Record):
    """The checkpoint that was converted."""

    checkpoint: Name
    architecture: Name
    parameters: Index
    sha256: Sha256


class TokenizerInfo(Record):
    """The tokenizer of a bundle; `file` is a Hugging Face tokenizers file.

    vocabulary: a WordPiece vocab.txt for apps with their own tokenizer, or None; its hash is
    `vocabulary_sha256`. inputs: names of the model inputs that the tokenizer fills. prompt: text
    that `file` inserts before every text; an app that uses `vocabulary` must insert it itself.
    """

    file: RelativePath
    sha256: str
    vocabulary: RelativePath | None
    vocabulary_sha256: str | None = None
    vocabulary_size: Count
    pad_token_id: TokenId
    mask_token_id: TokenId | None
    lowercase: bool
    strip_accents: bool
    inputs: tuple[str, ...]
    prompt: str = ""


class Golden(Record):
    """The file of golden vectors.

    samples: number of samples. from_data: number of samples from the user's own texts (`edge
    convert --samples`), which come first; the others are built in.
    """

    file: RelativePath
    sha256: Sha256
    samples: Count
    from_data: Index = 0


class Tool(Record):
    """The program that wrote the bundle."""

    name: Name
    version: Name


class Embedding(Record):
    """The computation of a text's embedding, which is part of the model file.

    pooling: "mean" over real tokens, or "cls", the first token. normalized: it has length 1.
    """

    pooling: Literal["mean", "cls"]
    normalized: bool


class Manifest(Record):
    """The whole of `edge.json`.

    task: Transformers' own name. problem_type: Transformers' own, for text-classification.
    activation: function that turns logits into scores ("softmax", "sigmoid" or "none").
    max_length: the longest input in tokens; longer texts are truncated.
    embedding, similarity (of two vectors): for feature-extraction.
    pairs: True if a text classifier reads two texts as one input; None if unknown.
    sha256: the hash of the other values of the file, see `edge.bundle.folder`.
    """

    schema_version: Literal["1"] = SCHEMA_VERSION
    task: str
    problem_type: str | None
    labels: tuple[str, ...] | None = Field(min_length=1)
    activation: Activation
    source: Source
    tokenizer: TokenizerInfo
    max_length: Count
    embedding: Embedding | None = None
    pairs: bool | None = None
    similarity: Similarity | None = None
    golden: Golden
    artifacts: tuple[Artifact, ...]
    tool: Tool
    created_utc: Name
    sha256: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_manifest(self)
        return self

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = self.labels or ()
        duplicate = next((name for name in labels if labels.count(name) > 1), None)
        if duplicate is not None:
            raise ValueError(f"two labels have the name {duplicate!r}")
        return self


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of `edge.json`; a copy ships as `edge/bundle/schema.json`."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_manifest(found: Manifest) -> None:
    """Whether task, labels, tokenizer, lengths and artifacts go together."""
    if found.task not in TASK_OUTPUTS:
        raise ValueError(str(unknown_name("task", found.task, TASK_OUTPUTS)))
    if found.problem_type is not None and found.problem_type not in _PROBLEM_TYPES:
        raise ValueError(str(unknown_name("problem_type", found.problem_type, _PROBLEM_TYPES)))
    if (found.embedding is not None) != (found.task == "feature-extraction"):
        raise ValueError("embedding belongs to feature-extraction, and to no other task")
    _check_tokenizer(found.tokenizer)
    if found.golden.from_data > found.golden.samples:
        raise ValueError("golden.from_data is more than golden.samples")
    check_once("artifacts", [f"{a.format} {a.target} {a.precision}" for a in found.artifacts])
    check_once("files", [a.file for a in found.artifacts])
    for one in found.artifacts:
        _check_entry(found, one)


def _check_tokenizer(info: TokenizerInfo) -> None:
    sha256(info.sha256)
    if (info.vocabulary is None) != (info.vocabulary_sha256 is None):
        raise ValueError("tokenizer.vocabulary and vocabulary_sha256 belong together")
    if info.vocabulary_sha256 is not None:
        sha256(info.vocabulary_sha256)
    check_input_names("tokenizer.inputs", info.inputs)


def _check_entry(found: Manifest, one: Artifact) -> None:
    """One artifact against the rest of its bundle."""
    extra = sorted({spec.name for spec in one.inputs} - set(found.tokenizer.inputs))
    if extra:
        raise ValueError(f"{one.name} has input '{extra[0]}', which the tokenizer does not fill")
    if one.sequence_lengths[-1] > found.max_length:
        raise ValueError(
            f"{one.name} has length {one.sequence_lengths[-1]}, max_length is {found.max_length}"
        )
    expected = TASK_OUTPUTS[found.task]
    if [spec.name for spec in one.outputs] != list(expected):
        names = ", ".join(spec.name for spec in one.outputs) or "none"
        raise ValueError(f"{one.name} has outputs {names}, {found.task} has {', '.join(expected)}")
    for spec in one.outputs:
        _check_output(found, one.name, spec, expected[spec.name])


def _check_output(
    found: Manifest, name: str, spec: TensorSpec, expected: tuple[str | int, ...]
) -> None:
    shape = ", ".join(map(str, expected))
    if spec.dtype != "float32" or len(spec.shape) != len(expected):
        raise ValueError(f"{name}: output '{spec.name}' is not float32 of shape {shape}")
    for size, symbol in zip(spec.shape, expected, strict=True):
        fixed = symbol not in ("batch", "sequence") and isinstance(size, int)
        if size != symbol and not (fixed and int(size) >= 1):
            raise ValueError(f"{name}: output '{spec.name}' has {size!r} in the place of {symbol}")
        count = len(found.labels or ())
        if symbol == "labels" and fixed and count and size != count:
            raise ValueError(
                f"{name}: output '{spec.name}' gives {size} values, labels are {count}"
            )
