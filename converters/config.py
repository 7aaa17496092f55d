"""What `edge convert` is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from edge.config import Config
from edge.data import Columns
from edge.embeddings.head import Pooling
from edge.errors import ConfigError
from edge.formats import FORMATS, Format, Target, parse_format, parse_target
from edge.precision import Precision, parse_precision
from edge.provenance import OutputPath, Word
from edge.signature import SHORTEST_LENGTH
from edge.sources import CheckpointSource, DataSource

DEFAULT_LENGTHS = (32, 64, 128)
# What is made where nothing is said; a target that lacks one gets the nearest that it has.
DEFAULT_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)


class ConvertConfig(Config):
    """One conversion.

    source: checkpoint folder or hub id. task: by default what the checkpoint was trained for.
    target: what the artifacts must run on, names of `edge.formats`; a format without one gets its
    default. precision: by default fp32, fp16 and int8, or the nearest that a target has.
    shapes: whether Core ML accepts every length up to the largest ("flexible") or, iOS 18 on, just
    the listed ones ("enumerated"), which suits the Neural Engine.
    seq_length: lengths in tokens. TFLite gets one signature each; ONNX accepts every length up to
    the largest, and Core ML unless `shapes` says otherwise. Lengths beyond the model's positions
    are refused, except that the default is shortened to fit.
    golden_texts: how many of the built-in texts, and of those that try the tokenizer, become golden
    vectors; all by default.
    samples: a data file whose first `sample_count` texts join the golden vectors; where the task
    reads one text, both texts of a pair, one by one.
    pooling, normalize: of sentence embeddings, where not what the checkpoint says.
    calibration: a data file with texts like those the app will see, for int8-static, and with
    labels for `max_drop`; its first `calibration_count` rows are used.
    max_drop: how much of the task's metric an artifact may lose on `calibration`; layers stay wider
    until it loses no more. Absolute: 0.01 is one point of accuracy.
    """

    source: CheckpointSource
    output: OutputPath
    task: Word | None = None
    format: tuple[Word, ...] = tuple(FORMATS)
    precision: tuple[Precision, ...] | None = None
    target: tuple[Word, ...] = ()
    shapes: Literal["flexible", "enumerated"] = "flexible"
    seq_length: tuple[int, ...] | None = None
    golden_texts: int | None = Field(default=None, ge=1)
    verify: bool = True
    samples: DataSource | None = None
    sample_count: int = Field(default=32, ge=1, le=1024)
    calibration: DataSource | None = None
    calibration_count: int = Field(default=256, ge=1)
    max_drop: float | None = Field(default=None, ge=0, le=1)
    pooling: Pooling | None = None
    normalize: bool | None = None
    columns: Columns = Columns()
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @field_validator("format", mode="after")
    @classmethod
    def _known_formats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_format(name).name for name in names))

    @field_validator("precision", mode="before")
    @classmethod
    def _known_precisions(cls, names: Sequence[str] | None) -> tuple[Precision, ...] | None:
        return None if names is None else tuple(dict.fromkeys(parse_precision(n) for n in names))

    @field_validator("seq_length", mode="after")
    @classmethod
    def _sorted_lengths(cls, lengths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if lengths is not None and (not lengths or min(lengths) < SHORTEST_LENGTH):
            raise ValueError(f"a sequence length must be at least {SHORTEST_LENGTH} tokens")
        return None if lengths is None else tuple(sorted(set(lengths)))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            for name in self.target:
                form, target = parse_target(name)
                if form.name not in self.format:
                    raise ConfigError(f"target {target.name} needs --format {form.name}")
            for form, target in self.targets():
                for precision in self.precision or ():
                    _check_possible(form, target, precision)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        self._check_companions()
        return self

    def _check_companions(self) -> None:
        if self.max_drop is not None and self.calibration is None:
            raise ValueError("a metric budget needs labelled data: add --calibration FILE")
        if self.calibration is None and any(p.needs_calibration for p in self.precision or ()):
            raise ValueError(
                "int8-static needs texts like those the app will see: add --calibration FILE"
            )
        apple = {t.name for form, t in self.targets() if form.name == "coreml"}
        if self.shapes == "enumerated" and apple - {"ios18"}:
            raise ValueError("enumerated shapes of several inputs need --target ios18")

    def targets(self) -> list[tuple[Format, Target]]:
        """Each target to convert for, with its format."""
        chosen = [parse_target(name) for name in dict.fromkeys(self.target)]
        found = []
        for name in self.format:
            form = FORMATS[name]
            mine = [target for owner, target in chosen if owner is form]
            found += [(form, target) for target in mine or [form.default_target]]
        return found

    def precisions(self, target: Target) -> tuple[Precision, ...]:
        """What to write for a target."""
        if self.precision is not None:
            return self.precision
        return tuple(dict.fromkeys(p.nearest(target.precisions) for p in DEFAULT_PRECISIONS))

    def lengths(self, maximum: int) -> tuple[int, ...]:
        """The lengths to convert for, given the model's own maximum in tokens."""
        if self.seq_length is None:
            # A shorter model gets its own maximum in the place of the longer defaults.
            return tuple(sorted({min(length, maximum) for length in DEFAULT_LENGTHS}))
        if self.seq_length[-1] > maximum:
            raise ConfigError(
                f"sequence length {self.seq_length[-1]} is beyond the model's {maximum} positions: "
                f"use --seq-length {maximum} or less"
            )
        return self.seq_length


def _check_possible(form: Format, target: Target, precision: Precision) -> None:
    if precision in target.precisions:
        return
    nearest = precision.nearest(target.precisions)
    others = [t.name for t in form.targets if precision in t.precisions]
    instead = f", or --target {others[0]}" if others else ""
    raise ConfigError(
        f"{form.title} for {target.name} has no {precision.value}: the nearest is "
        f"--precision {nearest.value}{instead}"
    )
