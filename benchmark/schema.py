"""One row of results: a model, an engine, a device, and everything that was found out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edge.bundle import Verification
from edge.config import Config

SCHEMA_VERSION: Literal["2"] = "2"
Interval = tuple[float, float]


class Tool(Config):
    """The program that wrote the row. git: its commit, when it runs from a checkout."""

    name: str
    version: str
    git: str | None = None


class Model(Config):
    """What was timed.

    target: what the artifact was made for; None for what is no artifact.
    bytes_zip: after deflate, level 6, as in an app's package; None for baselines.
    params: parameters of the checkpoint it was made from.
    """

    id: str
    format: str
    precision: str
    target: str | None = None
    sha256: str | None
    bytes: int | None
    bytes_zip: int | None = None
    params: int | None = None
    arch: str | None = None


class Runtime(Config):
    """What ran it.

    affinity: the processors it was allowed to use. nodes: graph nodes by provider. bytes: size of
    its libraries on that device, which an app carries in a build of its own.
    """

    name: str
    version: str | None
    provider: str | None
    threads: int | None
    affinity: tuple[int, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    nodes: dict[str, int] | None = None
    bytes: int | None = None


class DeviceInfo(Config):
    """Where it ran.

    driver: how it was reached: local, ssh, adb, browser ... address: which one, as that driver
    names it. kind: only a "real" device can give valid latencies. details: what else the driver
    found out about it.
    """

    driver: str
    address: str | None = None
    kind: Literal["real", "emulated", "simulated"]
    model: str | None
    soc: str | None
    abi: str | None
    cores: int | None
    cpu_features: tuple[str, ...] = ()
    os: str | None
    ram_mb: int | None
    versions: dict[str, str] = Field(default_factory=dict)
    details: dict[str, str] = Field(default_factory=dict)


class InputsInfo(Config):
    """What went in.

    batch: texts an inference. samples: texts in all. seq_len: the longest input in tokens, padding
    included; padding: whether every input is that long, or as short as the model accepts it.
    real_len_p50: median without padding.
    """

    dataset: str | None
    sha256: str | None
    batch: int
    samples: int | None
    seq_len: int | None
    padding: Literal["fixed", "shortest"] = "fixed"
    real_len_p50: float | None


class ProtocolInfo(Config):
    """How it was measured; see `benchmark.config.Protocol`; None where it is not known.

    warmup: runs before the first turn. order: in which the models took turns.
    interruptions: how often the measurement was broken off and taken up again.
    """

    preset: str
    warmup: int | None = None
    min_runs: int | None = None
    min_s: float | None = None
    max_s: float | None = None
    passes: int | None = None
    rounds: int | None = None
    processes: int | None = None
    cooldown_s: float | None = None
    sustained_s: float | None = None
    order: str | None = None
    seed: int | None = None
    interruptions: int = 0


class Conditions(Config):
    """The device's state at one moment; None where it cannot be read.

    load_average: over 1, 5 and 15 minutes. frequency_mhz: lowest and highest over the cores now.
    thermal_status: the system's own word for how much it throttles, such as "none" or "severe".
    battery_percent, charging: of a device that has a battery.
    busy_s: processor seconds used by all programs since the machine started.
    """

    at_utc: str
    load_average: tuple[float, float, float] | None = None
    governor: str | None = None
    frequency_mhz: tuple[float, float] | None = None
    temperature_c: float | None = None
    thermal_status: str | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    busy_s: float | None = None


class ConditionsPair(Config):
    """Before and after the comparison that a row is part of.

    other_cores: processor cores that other programs kept busy meanwhile, on average.
    """

    before: Conditions | None = None
    after: Conditions | None = None
    other_cores: float | None = None


class Latency(Config):
    """Milliseconds for one inference.

    load: opening the model. first: the first inference. All other values are of the n recorded
    runs after warm-up; p50 to p99 interpolate linearly; p99 needs 100 runs. p50: None only in
    imported rows, whose tool gave a mean or another percentile alone.
    recorded: what `raw_ns` holds: each of the "runs"; or, where the tool that timed tells no single
    runs, the median of each of the "turns", so that there are no other percentiles; or "nothing".
    p90_early_stopping: MLPerf's estimate, which the true 90th percentile exceeds with a
    probability of at most 1 %; needs 64 runs.
    mad: median absolute deviation from p50. ci95: 95 % bootstrap interval of p50 over rounds.
    drift: median of the last quarter of runs / median of the first - 1.
    total_s: all recorded runs together, where each text of a data file was run equally often.
    raw_ns: what was recorded in nanoseconds, in order; blocks: (round, values) they belong to.
    """

    load: float | None = None
    first: float | None = None
    n: int
    mean: float | None = None
    p50: float | None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    min: float | None = None
    max: float | None = None
    mad: float | None = None
    ci95: Interval | None = None
    p90_early_stopping: float | None = None
    drift: float | None = None
    total_s: float | None = None
    recorded: Literal["runs", "turns", "nothing"] = "runs"
    raw_ns: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()


class Ratio(Config):
    """How many times faster a row is than a baseline: p50 of the baseline / p50 of the row.

    Each of all its recorded runs, as the rows show them. ci95: 95 % interval, which holds the
    value; rounds are resampled in pairs, and where one sat out rounds the interval also covers the
    ratio of the rounds in which both were timed.
    indistinguishable: the interval includes 1, or there were too few rounds for one.
    paired: False where the baseline was timed in another run, whose state of the machine was
    another: then the interval is too narrow by what the machine changed meanwhile.
    """

    value: float
    ci95: Interval | None
    baseline: str
    engine: str
    indistinguishable: bool
    paired: bool = True


class Memory(Config):
    """Memory of the model's process, in units of 10^6 bytes.

    peak_rss_mb: the most that was resident; delta_mb: that without what the program and the
    engine's library took before the model was loaded. pss_mb: Android's proportional set size.
    wasm_mb: in a browser, the WebAssembly memory that engine and model took at the most.
    """

    peak_rss_mb: float | None = None
    delta_mb: float | None = None
    pss_mb: float | None = None
    wasm_mb: float | None = None


class Stage(Config):
    """Milliseconds of a part of the work, over n texts at batch 1."""

    p50: float
    p90: float
    n: int


class Stages(Config):
    """From text to output, each text at the length it was timed at, in runs of their own.

    e2e: tokenize and infer together, with what lies between.
    """

    tokenize: Stage
    infer: Stage
    e2e: Stage


class Stretch(Config):
    """A part of a sustained run: `start_s` to `end_s` seconds after its begin, n runs."""

    start_s: float
    end_s: float
    n: int
    p50: float
    p90: float | None = None
    temperature_c: float | None = None
    frequency_mhz: Interval | None = None
    thermal_status: str | None = None


class Operator(Config):
    """One kind of operator in a profile, a run of its own: how often it ran in an inference, and
    its milliseconds there; share: of all operators.
    """

    type: str
    count: int
    total_ms: float
    share: float


class Accuracy(Config):
    """The task's metric on the same artifact.

    engine: what ran it, which is not always what was timed. on_device: whether it was run on the
    device that was timed. ref: the checkpoint's own value.
    """

    metric: str
    value: float
    engine: str
    on_device: bool = False
    samples: int | None = None
    ref: float | None = None
    max_abs_diff: float | None = None


class Validity(Config):
    """Whether the latency may be quoted.

    valid; limited: with the reservations in `reasons`; invalid: not at all; not_measured: there is
    none, for the reasons given.
    """

    status: Literal["valid", "limited", "invalid", "not_measured"]
    reasons: tuple[str, ...] = ()


class Row(Config):
    """One line of `rows.jsonl`.

    instructions: executed in one inference, where an emulator counts them.
    check: the golden texts on the device that was timed, against the checkpoint's outputs.
    """

    schema_version: Literal["2"] = SCHEMA_VERSION
    run_id: str
    started_utc: str
    tool: Tool
    role: Literal["artifact", "baseline", "imported"]
    model: Model
    runtime: Runtime
    device: DeviceInfo
    inputs: InputsInfo
    protocol: ProtocolInfo
    conditions: ConditionsPair
    latency_ms: Latency | None
    stages: Stages | None = None
    sustained: tuple[Stretch, ...] = ()
    operators: tuple[Operator, ...] = ()
    instructions: int | None = None
    memory: Memory | None
    check: Verification | None = None
    accuracy: Accuracy | None = None
    ratio_to_baseline: Ratio | None = None
    ratio_same_engine: Ratio | None = None
    validity: Validity


def json_schema() -> dict[str, object]:
    """The JSON Schema of a row; a copy ships as `benchmark/row.schema.json`."""
    schema = Row.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
