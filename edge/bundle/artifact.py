"""The entry of a model file in `edge.json`, with its verifications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from edge.bundle.fields import (
    Count,
    Lengths,
    Name,
    Record,
    RelativePath,
    Sha256,
    ascending,
    check_input_names,
    check_once,
)
from edge.errors import ConfigError, unknown_name
from edge.formats import FORMATS, parse_format, variant
from edge.precision import parse_precision
from edge.signature import SHORTEST_LENGTH, TensorSpec


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
        _check_artifact(self)
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


def _check_artifact(artifact: Artifact) -> None:
    """Raise ValueError unless format, target, precision, lengths and engines fit together."""
    try:
        form = parse_format(artifact.format)
        target = form.target(artifact.target)
        precision = parse_precision(artifact.precision)
        for runtime in artifact.runtimes:
            if runtime not in target.runtimes:
                raise unknown_name(f"runtime of {target.name}", runtime, target.runtimes)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if precision not in target.precisions:
        raise ValueError(f"{form.title} for {target.name} has no {precision.value}")
    if not artifact.sequence_lengths:
        raise ValueError("sequence_lengths is empty: an artifact accepts at least one length")
    if artifact.dynamic_sequence and len(artifact.sequence_lengths) > 1:
        raise ValueError("with dynamic_sequence, sequence_lengths holds the longest alone")
    check_once("runtimes", artifact.runtimes)
    if artifact.verifications and artifact.verification != artifact.verifications[0]:
        raise ValueError("verification is not the first of verifications")
    for result in artifact.verifications:
        _check_verification(result)
    _check_inputs(artifact.inputs)


def _check_verification(verification: Verification) -> None:
    ascending(verification.sequence_lengths)
    # Figures are rounded: a cosine may be a little above 1.
    bounds = {"max_relative_error": 1e300, "cosine": 1.01, "label_agreement": 1.0}
    for name, most in bounds.items():
        value = getattr(verification, name)
        least = -most if name == "cosine" else 0.0
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} of a verification is {value:g}")
    if verification.samples < 0:
        raise ValueError(f"a verification has {verification.samples} samples")


def _check_inputs(specs: Sequence[TensorSpec]) -> None:
    check_input_names("inputs", [spec.name for spec in specs])
    for spec in specs:
        if (spec.dtype, spec.shape) != ("int32", ("batch", "sequence")):
            raise ValueError(f"input '{spec.name}' is not int32 of shape batch, sequence")
