"""`edge.json`: what a bundle holds and what was found out about it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from typing_extensions import Self

from edge.config import Config
from edge.errors import ConfigError
from edge.formats import FORMATS, parse_format, variant
from edge.precision import parse_precision
from edge.signature import SHORTEST_LENGTH, TensorSpec

SCHEMA_VERSION: Literal["1"] = "1"
MANIFEST_FILE = "edge.json"
GOLDEN_FILE = "golden.json"
TOKENIZER_FILE = "tokenizer.json"

RelativePath = str
Activation = Literal["softmax", "sigmoid", "none"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]


class Source(Config):
    """Where the converted model came from."""

    checkpoint: str
    architecture: str
    parameters: int
    sha256: str


class TokenizerInfo(Config):
    """How to turn a text into input ids; `file` is a Hugging Face tokenizers file.

    vocabulary: a plain word-piece list for apps that tokenise on their own, or None.
    inputs: the model inputs a text fills, by name. prompt: what `file` puts before every text; an
    app that tokenises by `vocabulary` has to do so itself.
    """

    file: RelativePath
    sha256: str
    vocabulary: RelativePath | None
    vocabulary_size: int
    pad_token_id: int
    mask_token_id: int | None
    lowercase: bool
    strip_accents: bool
    inputs: tuple[str, ...]
    prompt: str = ""


class Verification(Config):
    """One artifact run in one engine against the checkpoint's golden vectors.

    max_relative_error: max |a - b| over all outputs / max |b|; None when a value was not finite.
    cosine: between all outputs of all samples, as one vector, and the checkpoint's.
    label_agreement: share of samples with the same top-1 answer; None where a task has no labels.
    samples: how many inputs were compared, over `sequence_lengths`.
    """

    status: Literal["passed", "failed", "unavailable"]
    engine: str
    engine_version: str | None = None
    max_relative_error: float | None = None
    cosine: float | None = None
    label_agreement: float | None = None
    samples: int = 0
    sequence_lengths: tuple[int, ...] = ()
    reason: str | None = None


class KeptWider(Config):
    """A part of an artifact that its own precision would have harmed.

    layer: module of the checkpoint, or operator of the graph. size_bytes: what keeping it at
    `precision` added to the file; None where that is not known.
    """

    layer: str
    precision: str
    size_bytes: int | None = None


class Budget(Config):
    """The task's metric on calibration data, of the checkpoint and of the artifact."""

    metric: str
    checkpoint: float
    artifact: float
    max_drop: float
    samples: int


class Artifact(Config):
    """One model file.

    target: what the app that loads it runs on.
    sequence_lengths: the lengths it accepts; when `dynamic_sequence`, every length up to the last.
    runtimes: the engines it was proven in.
    verification: in the target's main engine; `verifications` holds every engine that was tried.
    kept_wider: layers that are wider than `precision`, and why in the docs of that precision.
    budget: the metric it was held to, where one was asked for.
    """

    format: str
    target: str
    precision: str
    file: RelativePath
    bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sequence_lengths: tuple[int, ...]
    dynamic_sequence: bool
    runtimes: tuple[str, ...] = ()
    verification: Verification | None = None
    verifications: tuple[Verification, ...] = ()
    kept_wider: tuple[KeptWider, ...] = ()
    budget: Budget | None = None

    @model_validator(mode="after")
    def _known_kind(self) -> Self:
        try:
            parse_format(self.format).target(self.target)
            parse_precision(self.precision)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def name(self) -> str:
        """How the artifact is called in tables and messages."""
        return "-".join((self.format, self.variant))

    @property
    def variant(self) -> str:
        """What tells it from others of its format: precision, and target if not the usual."""
        return variant(self.format, self.target, self.precision)

    @property
    def target_runtimes(self) -> tuple[str, ...]:
        """The engines of its target, the main one first."""
        return FORMATS[self.format].target(self.target).runtimes

    def fit_length(self, tokens: int) -> int:
        """The length to run `tokens` tokens at: the next that the artifact accepts, or its last."""
        if self.dynamic_sequence:
            return max(SHORTEST_LENGTH, min(tokens, self.sequence_lengths[-1]))
        return next((n for n in self.sequence_lengths if n >= tokens), self.sequence_lengths[-1])


class Golden(Config):
    """The file of golden vectors."""

    file: RelativePath
    sha256: str
    samples: int


class Tool(Config):
    """The program that wrote the bundle."""

    name: str
    version: str


class Embedding(Config):
    """How a text's vector is made, all of it inside the model file.

    pooling: "mean" over real tokens, or "cls", the first token. normalized: it has length 1.
    """

    pooling: Literal["mean", "cls"]
    normalized: bool


class Manifest(Config):
    """The whole of `edge.json`.

    task: Transformers' own name. problem_type: Transformers' own, for text-classification.
    activation: what turns logits into the answer ("softmax", "sigmoid" or "none").
    max_length: the longest input in tokens; longer texts are truncated.
    embedding: for feature-extraction. similarity: how the checkpoint compares two vectors there.
    pairs: whether a text classifier reads two texts as one input, or one; None where nothing tells.
    """

    schema_version: Literal["1"] = SCHEMA_VERSION
    task: str
    problem_type: str | None
    labels: tuple[str, ...] | None
    activation: Activation
    source: Source
    tokenizer: TokenizerInfo
    max_length: int
    embedding: Embedding | None = None
    pairs: bool | None = None
    similarity: Similarity | None = None
    golden: Golden
    artifacts: tuple[Artifact, ...]
    tool: Tool
    created_utc: str

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = self.labels or ()
        twice = next((name for name in labels if labels.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two labels have the name {twice!r}")
        return self


def json_schema() -> dict[str, object]:
    """The JSON Schema of `edge.json`; a copy ships as `edge/bundle/schema.json`."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
