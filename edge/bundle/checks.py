"""What the fields of `edge.json` can be, beyond their types; each check raises ValueError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.errors import ConfigError, unknown_name
from edge.formats import parse_format
from edge.precision import parse_precision
from edge.signature import INPUT_NAMES, TASK_OUTPUTS, TensorSpec

if TYPE_CHECKING:
    from edge.bundle.manifest import Artifact, Manifest, TokenizerInfo, Verification

_PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
_NEEDED_INPUTS = {"input_ids", "attention_mask"}


def sha256(value: str) -> str:
    """A SHA-256 digest in lower-case hexadecimal."""
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"a SHA-256 digest has 64 hexadecimal digits, found {value[:80]!r}")
    return value


def ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths in ascending order, each once."""
    if list(values) != sorted(set(values)):
        raise ValueError(f"lengths must ascend, found {', '.join(map(str, values))}")
    return values


def artifact(found: Artifact) -> None:
    """Whether format, target, precision, lengths, engines and verifications go together."""
    try:
        form = parse_format(found.format)
        target = form.target(found.target)
        precision = parse_precision(found.precision)
        for runtime in found.runtimes:
            if runtime not in target.runtimes:
                raise unknown_name(f"runtime of {target.name}", runtime, target.runtimes)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if precision not in target.precisions:
        raise ValueError(f"{form.title} for {target.name} has no {precision.value}")
    if not found.sequence_lengths:
        raise ValueError("sequence_lengths is empty: an artifact accepts at least one length")
    if found.dynamic_sequence and len(found.sequence_lengths) > 1:
        raise ValueError("with dynamic_sequence, sequence_lengths holds the longest alone")
    _once("runtimes", found.runtimes)
    if found.verifications and found.verification != found.verifications[0]:
        raise ValueError("verification is not the first of verifications")
    for result in found.verifications:
        _check_verification(result)
    _check_inputs(found.inputs)


def manifest(found: Manifest) -> None:
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
    _once("artifacts", [f"{a.format} {a.target} {a.precision}" for a in found.artifacts])
    _once("files", [a.file for a in found.artifacts])
    for one in found.artifacts:
        _check_artifact(found, one)


def _check_tokenizer(info: TokenizerInfo) -> None:
    sha256(info.sha256)
    if (info.vocabulary is None) != (info.vocabulary_sha256 is None):
        raise ValueError("tokenizer.vocabulary and vocabulary_sha256 belong together")
    if info.vocabulary_sha256 is not None:
        sha256(info.vocabulary_sha256)
    _check_names("tokenizer.inputs", info.inputs)


def _check_verification(found: Verification) -> None:
    ascending(found.sequence_lengths)
    # Figures are rounded: a cosine may be a little above 1.
    bounds = {"max_relative_error": 1e300, "cosine": 1.01, "label_agreement": 1.0}
    for name, most in bounds.items():
        value = getattr(found, name)
        least = -most if name == "cosine" else 0.0
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} of a verification is {value:g}")
    if found.samples < 0:
        raise ValueError(f"a verification has {found.samples} samples")


def _check_inputs(specs: Sequence[TensorSpec]) -> None:
    _check_names("inputs", [spec.name for spec in specs])
    for spec in specs:
        if (spec.dtype, spec.shape) != ("int32", ("batch", "sequence")):
            raise ValueError(f"input '{spec.name}' is not int32 of shape batch, sequence")


def _check_names(where: str, names: Sequence[str]) -> None:
    _once(where, names)
    foreign = [name for name in names if name not in INPUT_NAMES]
    if foreign:
        raise ValueError(f"{where}: {unknown_name('input', foreign[0], INPUT_NAMES)!s}")
    missing = sorted(_NEEDED_INPUTS.difference(names))
    if missing:
        raise ValueError(f"{where} lacks {' and '.join(missing)}")


def _check_artifact(found: Manifest, one: Artifact) -> None:
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


def _once(where: str, values: Sequence[str]) -> None:
    repeated = [value for value in dict.fromkeys(values) if list(values).count(value) > 1]
    if repeated:
        raise ValueError(f"{where}: '{repeated[0]}' is there twice")
