"""Configuration of `edge benchmark`, and its protocol presets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from edge.config import Config
from edge.data import Columns
from edge.errors import ConfigError, unknown_name
from edge.formats import parse_format
from edge.precision import parse_precision
from edge.provenance import NO_EFFECT, InputPath, Word
from edge.sources import CheckpointPath, DataPath

DEFAULT_LENGTH = 128
# Far beyond what a phone runs at once, and below what takes all memory of a machine.
_MOST_THREADS = 1024
_MOST_TEXTS = 4096


class Protocol(Config):
    """Amount of measurement per cell.

    A comparison goes in rounds; in each round every cell takes one turn, in random order. A turn is
    one unrecorded run, which brings the model back into the caches that others used meanwhile, and
    a block of recorded runs: a `rounds`-th part of both `min_runs` and `min_s`.
    max_s: the time a cell may spend in its turns, the last of which may end later. A cell too slow
    for its minimum within that time sits out some rounds, evenly spread, and its row says so.
    Before that a cell is warmed up with at least `warmup_runs` runs and `warmup_s` seconds, and
    no more than `warmup_max_s` seconds.
    processes: how often every model gets a fresh process, each for an equal part of the rounds:
    how fast a process happens to be differs by more than its own runs tell.
    passes: instead of a minimum, every cell runs each text of the data file this often, the same
    number of texts a round, and the sum is what counts.
    cooldown_s: seconds of rest before each round. sustained_s: after the rounds every cell alone
    runs that long without a rest, and its row tells how its latency changed meanwhile.
    """

    min_runs: int = Field(default=1, ge=1)
    min_s: float = Field(default=0, ge=0)
    max_s: float = Field(gt=0)
    rounds: int = Field(ge=1)
    warmup_runs: int = Field(default=10, ge=1)
    warmup_s: float = Field(default=1.0, ge=0)
    warmup_max_s: float = Field(default=3.0, gt=0)
    processes: int = Field(default=1, ge=1)
    passes: int | None = Field(default=None, ge=1)
    cooldown_s: float = Field(default=0, ge=0)
    sustained_s: float = Field(default=0, ge=0)

    @property
    def turn(self) -> Block:
        """Runs that one turn records, without `passes`."""
        return Block(
            runs=-(-self.min_runs // self.rounds),
            min_s=self.min_s / self.rounds,
            max_s=self.max_s / self.rounds,
        )

    def part(self, process: int, processes: int) -> range:
        """The rounds of one process of several."""
        return part_of_rounds(self.rounds, process, processes)

    def turns(self, inputs: int) -> list[Block]:
        """Return the runs that each round's turn records, for a cell with so many inputs."""
        if self.passes is None:
            return [self.turn] * self.rounds
        runs = self.passes * inputs
        ends = [runs * number // self.rounds for number in range(self.rounds + 1)]
        counts = (end - start for start, end in itertools.pairwise(ends))
        return [Block(runs=count, min_s=0, max_s=self.max_s) for count in counts if count]


def part_of_rounds(rounds: int, process: int, processes: int) -> range:
    """The rounds of one process of several."""
    return range(process * rounds // processes, (process + 1) * rounds // processes)


@dataclass(frozen=True)
class Block:
    """Runs of one cell without a pause: at least `runs` and `min_s` seconds, until `max_s`."""

    runs: int
    min_s: float
    max_s: float


PRESETS = {
    "quick": Protocol(min_runs=64, min_s=6, max_s=12, rounds=35, processes=5),
    "standard": Protocol(min_runs=128, min_s=10, max_s=40, rounds=65, processes=5),
    "mlperf": Protocol(min_runs=1024, min_s=60, max_s=300, rounds=255, processes=5),
    # How DistilBERT's authors timed: one pass over all of a development file (Sanh et al. 2019,
    # https://arxiv.org/abs/1910.01108, table 3). In rounds, which theirs was not.
    "full-pass": Protocol(passes=1, max_s=3600, rounds=32),
}


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: what all cells of a comparison have in common.

    seq_length: tokens of every input, or of the longest where inputs are as short as possible.
    batch: texts per inference.
    """

    threads: int
    seq_length: int
    batch: int


class Baseline(Config):
    """A model that artifacts are compared with.

    checkpoint: timed in PyTorch fp32, for `ratio_to_baseline`.
    bundle: its fp32 artifact of the same format is timed in the same engine, for
    `ratio_same_engine`; another precision where the bundle holds no fp32.
    rows: rows of a saved report; no baseline is timed then, and intervals are wider.
    random_weights: the weights were never trained; the report says so.
    """

    name: Word
    checkpoint: CheckpointPath | None = None
    bundle: InputPath | None = None
    rows: InputPath | None = None
    random_weights: bool = False

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if self.checkpoint is None and self.bundle is None and self.rows is None:
            raise ValueError("a baseline needs a checkpoint, a bundle, or rows")
        return self


class DeviceOptions(Config):
    """Options of devices beside their address; see the docs of each device.

    host, port: address of this machine that a page is served at, and its port, any by default.
    certificate: PEM file of a certificate and its key, to serve that page by https.
    tools: folder with programs to run on the device. sysroot: folder with the files of another
    architecture. python: the interpreter on the device. timeout_s: the longest wait for an answer.
    """

    host: Annotated[str, NO_EFFECT] = "127.0.0.1"
    port: Annotated[int | None, NO_EFFECT] = Field(default=None, ge=1, le=65535)
    certificate: Annotated[Path | None, NO_EFFECT] = None
    tools: InputPath | None = None
    sysroot: InputPath | None = None
    python: Word = "python3"
    timeout_s: Annotated[float, NO_EFFECT] = Field(default=600, gt=0)


class BenchmarkConfig(Config):
    """Configuration of one benchmark.

    bundles: whose artifacts are timed. format, precision: which of them; all when empty.
    checkpoints: further models, timed in PyTorch on the texts of the first bundle.
    device: where, as `KIND` or `KIND:WHICH`, see `benchmark.devices`.
    seq_length: tokens of every input, padding included; empty for 128, or less where a bundle
    accepts less. threads, batch: of an inference. Several of these make a sweep: every combination
    is timed. padding: "fixed" to that length, or "shortest", each text to the shortest length the
    artifact accepts.
    preset: how much is measured, by name. protocol: the same in figures, in place of a preset.
    data: texts to use as inputs, a data file or a `datasets` name; None for the golden texts.
    eval: a data file whose rows every artifact answers on the device, for the metric there.
    profile: also tell, in runs of their own, which operators take how long.
    """

    bundles: tuple[InputPath, ...] = Field(min_length=1)
    checkpoints: tuple[CheckpointPath, ...] = ()
    baseline: Baseline | None = None
    format: tuple[Word, ...] = ()
    precision: tuple[Word, ...] = ()
    device: Word = "local"
    options: DeviceOptions = DeviceOptions()
    threads: tuple[Annotated[int, Field(gt=0, le=_MOST_THREADS)], ...] = Field(
        default=(1,), min_length=1
    )
    seq_length: tuple[Annotated[int, Field(ge=2)], ...] = ()
    batch: tuple[Annotated[int, Field(gt=0, le=_MOST_TEXTS)], ...] = Field(
        default=(1,), min_length=1
    )
    padding: Literal["fixed", "shortest"] = "fixed"
    preset: Word = "quick"
    protocol: Protocol | None = None
    data: DataPath | None = None
    eval: DataPath | None = None
    profile: bool = False
    columns: Columns = Columns()
    seed: int = Field(default=0, ge=0)

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str) -> str:
        if name not in PRESETS:
            raise ValueError(str(unknown_name("preset", name, PRESETS)))
        return name

    @field_validator("threads", "seq_length", "batch", mode="before")
    @classmethod
    def _one_or_several(cls, values: Any) -> Any:
        return (values,) if isinstance(values, int) else values

    @field_validator("threads", "seq_length", "batch")
    @classmethod
    def _each_once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(values))

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

    @model_validator(mode="after")
    def _passes_need_data(self) -> Self:
        if self.effective_protocol.passes and self.data is None:
            raise ValueError(f"preset {self.preset} goes through a whole data file: name one")
        return self

    @property
    def effective_protocol(self) -> Protocol:
        """The protocol in force: `protocol`, else the preset's."""
        return self.protocol or PRESETS[self.preset]
