"""Schema of `edge.json`, the manifest of a bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from edge.bundle import checks
from edge.config import Config
from edge.formats import FORMATS, variant
from edge.signature import SHORTEST_LENGTH, TensorSpec

SCHEMA_VERSION: Literal["1"] = "1"
MANIFEST_FILE = "edge.json"
GOLDEN_FILE = "golden.json"
TOKENIZER_FILE = "tokenizer.json"

RelativePath = str
Activation = Literal["softmax", "sigmoid", "none"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Name = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, AfterValidator(checks.sha256)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Lengths = Annotated[tuple[Count, ...], AfterValidator(checks.ascending)]


class Record(Config):
    """Base of the parts of `edge.json`; NaN and infinite numbers are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


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


class Verification(Record):
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

    @property
    def agreement_text(self) -> str:
        """Label agreement with the checkpoint for display, or the cosine if there are no labels."""
        if self.label_agreement is not None:
            return f"{self.label_agreement:.3f}"
        return "-" if self.cosine is None else f"cosine {self.cosine:.4f}"


class KeptWider(Record):
    """A part of an artifact kept at a wider precision, for accuracy.

    layer: module of the checkpoint, or operator of the graph. size_bytes: increase of the file
    size by keeping it at `precision`; None if unknown.
    """

    layer: Name
    precision: str
    size_bytes: int | None = None


class Budget(Record):
    """An accuracy budget: the task's metric on calibration data, of checkpoint and artifact."""

    metric: Name
    checkpoint: float
    artifact: float
    max_drop: float = Field(ge=0)
    samples: Count


class Artifact(Record):
    """One model file.

    target: name of the runtime environment of the app, see `edge.formats.Target`.
    sequence_lengths: the lengths it accepts; when `dynamic_sequence`, every length up to the last.
    runtimes: the engines in which it passed verification.
    verification: in the target's main engine; `verifications`: in every engine that was tried.
    kept_wider: layers at a wider precision than `precision`; the docs of that precision say why.
    budget: the accuracy budget it was converted with, if any.
    """

    format: str
    target: str
    precision: str
    file: RelativePath
    bytes: Count
    sha256: Sha256
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sequence_lengths: Lengths
    dynamic_sequence: bool
    runtimes: tuple[str, ...] = ()
    verification: Verification | None = None
    verifications: tuple[Verification, ...] = ()
    kept_wider: tuple[KeptWider, ...] = ()
    budget: Budget | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checks.artifact(self)
        return self

    @property
    def name(self) -> str:
        """The name of the artifact in tables and messages, such as "onnx-int8"."""
        return "-".join((self.format, self.variant))

    @property
    def variant(self) -> str:
        """The precision, with the target unless it is the default of the format."""
        return variant(self.format, self.target, self.precision)

    @property
    def target_runtimes(self) -> tuple[str, ...]:
        """Names of the engines of its target, the main one first."""
        return FORMATS[self.format].target(self.target).runtimes

    def verdict(self, result: Verification) -> str:
        """Return the status of one of `verifications` for display.

        An artifact fails only in the target's main engine. Any other engine is either declared in
        `runtimes` or not.
        """
        if result.status == "unavailable":
            return "not tried"
        if result.status == "passed" or result == self.verification:
            return result.status
        reason = "answers differ" if result.samples else "does not run"
        return f"not declared ({reason})"

    def fit_length(self, tokens: int) -> int:
        """Return the shortest accepted length for `tokens` tokens, or the longest length."""
        if self.dynamic_sequence:
            return max(SHORTEST_LENGTH, min(tokens, self.sequence_lengths[-1]))
        return next((n for n in self.sequence_lengths if n >= tokens), self.sequence_lengths[-1])


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
        checks.manifest(self)
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
