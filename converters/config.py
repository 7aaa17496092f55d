"""What `edge convert` is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from edge.config import Config
from edge.data import Columns
from edge.errors import ConfigError
from edge.formats import FORMATS, parse_format
from edge.precision import Precision, parse_precision
from edge.signature import SHORTEST_LENGTH

DEFAULT_LENGTHS = (32, 64, 128)


class ConvertConfig(Config):
    """One conversion.

    source: checkpoint folder or hub id. task: by default what the checkpoint was trained for.
    seq_length: lengths in tokens. TFLite gets one signature each; ONNX and Core ML accept every
    length up to the largest. Lengths beyond the model's positions are refused, except that the
    default is shortened to fit.
    golden_texts: how many of the built-in texts become golden vectors; all by default.
    samples: a data file whose first `sample_count` texts join the golden vectors.
    """

    source: str
    output: Path
    task: str | None = None
    format: tuple[str, ...] = tuple(FORMATS)
    precision: tuple[Precision, ...] = tuple(Precision)
    seq_length: tuple[int, ...] | None = None
    golden_texts: int | None = Field(default=None, ge=1)
    verify: bool = True
    samples: str | None = None
    sample_count: int = Field(default=32, ge=1, le=1024)
    columns: Columns = Columns()
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @field_validator("format", mode="after")
    @classmethod
    def _known_formats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_format(name).name for name in names))

    @field_validator("precision", mode="before")
    @classmethod
    def _known_precisions(cls, names: Sequence[str]) -> tuple[Precision, ...]:
        return tuple(dict.fromkeys(parse_precision(name) for name in names))

    @field_validator("seq_length", mode="after")
    @classmethod
    def _sorted_lengths(cls, lengths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if lengths is not None and (not lengths or min(lengths) < SHORTEST_LENGTH):
            raise ValueError(f"a sequence length must be at least {SHORTEST_LENGTH} tokens")
        return None if lengths is None else tuple(sorted(set(lengths)))

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
