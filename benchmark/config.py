"""What `edge benchmark` is asked to do, and what its presets demand."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from edge.config import Config
from edge.data import Columns
from edge.errors import ConfigError, unknown_name
from edge.formats import parse_format
from edge.precision import parse_precision

DEFAULT_LENGTH = 128


class Protocol(Config):
    """How much is measured, per cell.

    A comparison goes in rounds; in each round every cell takes one turn, in random order. A turn is
    one unrecorded run, which brings the model back into the caches that others used meanwhile, and
    a block of recorded runs: a `rounds`-th part of both `min_runs` and `min_s`.
    max_s: the time a cell may spend in its turns, the last of which may end later. A cell too slow
    for its minimum within that time sits out some rounds, evenly spread, and its row says so.
    Before that a cell is warmed up with at least `warmup_runs` runs and `warmup_s` seconds, and
    no more than `warmup_max_s` seconds.
    """

    min_runs: int = Field(ge=1)
    min_s: float = Field(ge=0)
    max_s: float = Field(gt=0)
    rounds: int = Field(ge=1)
    warmup_runs: int = Field(default=10, ge=1)
    warmup_s: float = Field(default=1.0, ge=0)
    warmup_max_s: float = Field(default=3.0, gt=0)

    @property
    def block_runs(self) -> int:
        """Recorded runs of one turn, at least."""
        return -(-self.min_runs // self.rounds)

    @property
    def block_s(self) -> float:
        """Recorded seconds of one turn, at least."""
        return self.min_s / self.rounds

    @property
    def turn_max_s(self) -> float:
        """Seconds after which a turn ends, whatever it has recorded (one run at least)."""
        return self.max_s / self.rounds


PRESETS = {
    "quick": Protocol(min_runs=64, min_s=6, max_s=12, rounds=32),
    "standard": Protocol(min_runs=128, min_s=10, max_s=40, rounds=64),
    "mlperf": Protocol(min_runs=1024, min_s=60, max_s=300, rounds=256),
}


class Baseline(Config):
    """What artifacts are compared with.

    checkpoint: timed in PyTorch fp32, for `ratio_to_baseline`.
    bundle: its fp32 artifact of the same format is timed in the same engine, for
    `ratio_same_engine`.
    random_weights: true architecture, weights that were never trained; the report says so.
    """

    name: str
    checkpoint: Path | None = None
    bundle: Path | None = None
    random_weights: bool = False

    @model_validator(mode="after")
    def _something_to_time(self) -> Self:
        if self.checkpoint is None and self.bundle is None:
            raise ValueError("a baseline needs a checkpoint, a bundle, or both")
        return self


class BenchmarkConfig(Config):
    """One comparison.

    bundles: whose artifacts are timed. format, precision: which of them; all when empty.
    seq_length: tokens of every input, padding included; None for 128, or less where a bundle
    accepts less.
    preset: how much is measured, by name. protocol: the same in figures, in place of a preset.
    data: texts to use as inputs, a data file or a `datasets` name; None for the golden texts.
    """

    bundles: tuple[Path, ...] = Field(min_length=1)
    baseline: Baseline | None = None
    format: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()
    threads: int = Field(default=1, ge=1)
    seq_length: int | None = Field(default=None, ge=2)
    preset: str = "quick"
    protocol: Protocol | None = None
    data: str | Path | None = None
    columns: Columns = Columns()
    seed: int = Field(default=0, ge=0)

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str) -> str:
        if name not in PRESETS:
            raise ValueError(str(unknown_name("preset", name, PRESETS)))
        return name

    @field_validator("format", "precision")
    @classmethod
    def _known_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _known_filters(self) -> Self:
        try:
            for name in self.format:
                parse_format(name)
            for name in self.precision:
                parse_precision(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def demands(self) -> Protocol:
        """How much is measured."""
        return self.protocol or PRESETS[self.preset]
