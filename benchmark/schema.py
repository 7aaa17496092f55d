"""One row of results: a model, an engine, a device, and everything that was found out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edge.config import Config

SCHEMA_VERSION: Literal["1"] = "1"
Interval = tuple[float, float]


class Tool(Config):
    """The program that wrote the row. git: its commit, when it runs from a checkout."""

    name: str
    version: str
    git: str | None = None


class Model(Config):
    """What was timed.

    bytes_zip: after deflate, level 6, as in an app's package; None for baselines.
    params: parameters of the checkpoint it was made from.
    """

    id: str
    format: str
    precision: str
    sha256: str
    bytes: int
    bytes_zip: int | None = None
    params: int | None = None
    arch: str | None = None


class Runtime(Config):
    """What ran it.

    affinity: the processors it was allowed to use. nodes: graph nodes by provider.
    """

    name: str
    version: str | None
    provider: str
    threads: int
    affinity: tuple[int, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    nodes: dict[str, int] | None = None


class DeviceInfo(Config):
    """Where it ran. kind: only a "real" device can give valid latencies."""

    driver: str
    kind: Literal["real", "emulated", "simulated"]
    model: str | None
    soc: str | None
    abi: str
    cores: int | None
    cpu_features: tuple[str, ...]
    os: str
    ram_mb: int | None
    versions: dict[str, str] = Field(default_factory=dict)


class InputsInfo(Config):
    """What went in. seq_len: padded length in tokens; real_len_p50: median without padding."""

    dataset: str
    sha256: str
    batch: int
    samples: int
    seq_len: int
    real_len_p50: float


class ProtocolInfo(Config):
    """How it was measured; see `benchmark.config.Protocol`. warmup: runs before the first turn."""

    preset: str
    warmup: int | None
    min_runs: int
    min_s: float
    max_s: float
    rounds: int
    cooldown_s: float
    order: str
    seed: int


class Conditions(Config):
    """The device's state at one moment; None where it cannot be read.

    load_average: over 1, 5 and 15 minutes. frequency_mhz: lowest and highest over the cores now.
    busy_s: processor seconds used by all programs since the machine started.
    """

    at_utc: str
    load_average: tuple[float, float, float] | None = None
    governor: str | None = None
    frequency_mhz: tuple[float, float] | None = None
    temperature_c: float | None = None
    busy_s: float | None = None


class ConditionsPair(Config):
    """Before and after the comparison that a row is part of.

    other_cores: processor cores that other programs kept busy meanwhile, on average.
    """

    before: Conditions
    after: Conditions
    other_cores: float | None = None


class Latency(Config):
    """Milliseconds for one inference at batch 1.

    load: opening the model. first: the first inference. All other values are of the n recorded
    runs after warm-up; p50 to p99 interpolate linearly; p99 needs 100 runs.
    p90_early_stopping: MLPerf's estimate, which the true 90th percentile exceeds with a
    probability of at most 1 %; needs 64 runs.
    mad: median absolute deviation from p50. ci95: 95 % bootstrap interval of p50 over rounds.
    drift: median of the last quarter of runs / median of the first - 1.
    raw_ns: every recorded run in nanoseconds, in order; blocks: (round, runs) that they belong to.
    """

    load: float
    first: float
    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float | None
    min: float
    max: float
    mad: float
    ci95: Interval | None
    p90_early_stopping: float | None
    drift: float | None
    raw_ns: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...]


class Ratio(Config):
    """How many times faster a row is than a baseline: p50 of the baseline / p50 of the row.

    Both over the rounds in which both were timed. ci95: 95 % interval, rounds resampled in pairs.
    indistinguishable: the interval includes 1, or there were too few rounds for one.
    """

    value: float
    ci95: Interval | None
    baseline: str
    engine: str
    indistinguishable: bool


class Memory(Config):
    """Resident memory of the model's process, in units of 10^6 bytes.

    peak_rss_mb: the most it had; delta_mb: that without what Python and the engine's library
    took before the model was loaded.
    """

    peak_rss_mb: float
    delta_mb: float


class Accuracy(Config):
    """The task's metric on the same artifact.

    engine: what ran it, which is not always what was timed. ref: the checkpoint's own value.
    """

    metric: str
    value: float
    engine: str
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
    """One line of `rows.jsonl`."""

    schema_version: Literal["1"] = SCHEMA_VERSION
    run_id: str
    started_utc: str
    tool: Tool
    role: Literal["artifact", "baseline"]
    model: Model
    runtime: Runtime
    device: DeviceInfo
    inputs: InputsInfo
    protocol: ProtocolInfo
    conditions: ConditionsPair
    latency_ms: Latency | None
    memory: Memory | None
    accuracy: Accuracy | None = None
    ratio_to_baseline: Ratio | None = None
    ratio_same_engine: Ratio | None = None
    validity: Validity


def json_schema() -> dict[str, object]:
    """The JSON Schema of a row; a copy ships as `benchmark/row.schema.json`."""
    schema = Row.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
