"""One row of results: a model, an engine, a device, and everything that was found out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from edge.bundle import Verification
from edge.config import Config

SCHEMA_VERSION: Literal["2"] = "2"
# Limits far above anything measured, under which no sum, ratio or axis overflows.
_MOST = 1 << 53
Index = Annotated[int, Field(ge=0, le=_MOST)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
Figure = Annotated[float, Field(ge=-1e15, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Positive = Annotated[float, Field(ge=1e-9, le=1e15)]
Interval = tuple[Positive, Positive]


def _writable(value: Any) -> Any:
    r"""Escape halves of a character, which a file name can hold and UTF-8 cannot: `\udcff`."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_writable)]
Name = Annotated[Text, Field(min_length=1)]


class Record(Config):
    """A part of a row: no figure in it is NaN or infinite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Tool(Record):
    """The program that wrote the row. git: its commit, when it runs from a checkout."""

    name: Text
    version: Text
    git: Text | None = None


class Model(Record):
    """What was timed.

    target: what the artifact was made for; None for what is no artifact.
    bytes_zip: Index | None
    params: Index | None
    """

    id: Name
    format: Name
    precision: Name
    target: Text | None = None
    sha256: Text | None
    bytes: Index | None
    bytes_zip: Index | None = None
    params: Index | None = None
    arch: Text | None = None


class Runtime(Record):
    """What ran it.

    affinity: tuple[Index, ...] | None
    its libraries on that device, which an app carries in a build of its own.
    """

    name: Name
    version: Text | None
    provider: Text | None
    threads: Count | None
    affinity: tuple[Index, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    nodes: dict[str, Index] | None = None
    bytes: Index | None = None


class DeviceInfo(Record):
    """Where it ran.

    driver: Name
    names it. kind: only a "real" device can give valid latencies. details: what else the driver
    found out about it.
    """

    driver: Name
    address: Text | None = None
    kind: Literal["real", "emulated", "simulated"]
    model: Text | None
    soc: Text | None
    abi: Text | None
    cores: Index | None
    cpu_features: tuple[Text, ...] = ()
    os: Text | None
    ram_mb: Index | None
    versions: dict[Text, Text] = Field(default_factory=dict)
    details: dict[Text, Text] = Field(default_factory=dict)


class InputsInfo(Record):
    """What went in.

    batch: Count
    included; padding: whether every input is that long, or as short as the model accepts it.
    real_len_p50: Amount | None
    """

    dataset: Text | None
    sha256: Text | None
    batch: Count
    samples: Index | None
    seq_len: Count | None
    padding: Literal["fixed", "shortest"] = "fixed"
    real_len_p50: Amount | None


class ProtocolInfo(Record):
    """How it was measured; see `benchmark.config.Protocol`; None where it is not known.

    warmup: Index | None
    interruptions: Index
    """

    preset: Text
    warmup: Index | None = None
    min_runs: Index | None = None
    min_s: Amount | None = None
    max_s: Amount | None = None
    passes: Index | None = None
    rounds: Index | None = None
    processes: Index | None = None
    cooldown_s: Amount | None = None
    sustained_s: Amount | None = None
    order: Text | None = None
    seed: Index | None = None
    interruptions: Index = 0


class Conditions(Record):
    """The device's state at one moment; None where it cannot be read.

    load_average: tuple[Amount, Amount, Amount] | None
    thermal_status: the system's own word for how much it throttles, such as "none" or "severe".
    battery_percent, charging: of a device that has a battery.
    busy_s: Amount | None
    """

    at_utc: Text
    load_average: tuple[Amount, Amount, Amount] | None = None
    governor: Text | None = None
    frequency_mhz: tuple[Amount, Amount] | None = None
    temperature_c: Figure | None = None
    thermal_status: Text | None = None
    battery_percent: Amount | None = None
    charging: bool | None = None
    busy_s: Amount | None = None


class ConditionsPair(Record):
    """Before and after the comparison that a row is part of.

    other_cores: Amount | None
    """

    before: Conditions | None = None
    after: Conditions | None = None
    other_cores: Amount | None = None


class Latency(Record):
    """Milliseconds for one inference.

    load: Amount | None
    runs after warm-up; p50 to p99 interpolate linearly; p99 needs 100 runs. p50: None only in
    imported rows, whose tool gave a mean or another percentile alone.
    recorded: what `raw_ns` holds: each of the "runs"; or, where the tool that timed tells no single
    runs, the median of each of the "turns", so that there are no other percentiles; or "nothing".
    p90_early_stopping: Amount | None
    probability of at most 1 %; needs 64 runs.
    mad: Amount | None
    drift: Figure | None
    total_s: Amount | None
    raw_ns: tuple[Index, ...]
    """

    load: Amount | None = None
    first: Amount | None = None
    n: Index
    mean: Amount | None = None
    p50: Positive | None
    p90: Amount | None = None
    p95: Amount | None = None
    p99: Amount | None = None
    min: Amount | None = None
    max: Amount | None = None
    mad: Amount | None = None
    ci95: Interval | None = None
    p90_early_stopping: Amount | None = None
    drift: Figure | None = None
    total_s: Amount | None = None
    recorded: Literal["runs", "turns", "nothing"] = "runs"
    raw_ns: tuple[Index, ...] = ()
    blocks: tuple[tuple[Index, Count], ...] = ()


class Ratio(Record):
    """How many times faster a row is than a baseline: p50 of the baseline / p50 of the row.

    Each of all its recorded runs, as the rows show them. ci95: 95 % interval, which holds the
    value; rounds are resampled in pairs, and where one sat out rounds the interval also covers the
    ratio of the rounds in which both were timed.
    indistinguishable: the interval includes 1, or there were too few rounds for one.
    paired: False where the baseline was timed in another run, whose state of the machine was
    another: then the interval is too narrow by what the machine changed meanwhile.
    """

    value: Positive
    ci95: Interval | None
    baseline: Name
    engine: Name
    indistinguishable: bool
    paired: bool = True


class Memory(Record):
    """Memory of the model's process, in units of 10^6 bytes.

    peak_rss_mb: Amount | None
    engine's library took before the model was loaded. pss_mb: Android's proportional set size.
    wasm_mb: Amount | None
    """

    peak_rss_mb: Amount | None = None
    delta_mb: Figure | None = None
    pss_mb: Amount | None = None
    wasm_mb: Amount | None = None


class Stage(Record):
    """Milliseconds of a part of the work, over n texts at batch 1."""

    p50: Amount
    p90: Amount
    n: Count


class Stages(Record):
    """From text to output, each text at the length it was timed at, in runs of their own.

    e2e: tokenize and infer together, with what lies between.
    """

    tokenize: Stage
    infer: Stage
    e2e: Stage


class Stretch(Record):
    """A part of a sustained run: `start_s` to `end_s` seconds after its begin, n runs."""

    start_s: Amount
    end_s: Amount
    n: Count
    p50: Positive
    p90: Amount | None = None
    temperature_c: Figure | None = None
    frequency_mhz: tuple[Amount, Amount] | None = None
    thermal_status: Text | None = None


class Operator(Record):
    """One kind of operator in a profile, a run of its own: how often it ran in an inference, and
    its milliseconds there; share: of all operators.
    """

    type: Text
    count: Index
    total_ms: Amount
    share: Share


class Accuracy(Record):
    """The task's metric on the same artifact.

    engine: what ran it, which is not always what was timed. on_device: whether it was run on the
    device that was timed. ref: the checkpoint's own value.
    """

    metric: Name
    value: Figure
    engine: Text
    on_device: bool = False
    samples: Index | None = None
    ref: Figure | None = None
    max_abs_diff: Amount | None = None


class Validity(Record):
    """Whether the latency may be quoted.

    valid; limited: with the reservations in `reasons`; invalid: not at all; not_measured: there is
    none, for the reasons given.
    """

    status: Literal["valid", "limited", "invalid", "not_measured"]
    reasons: tuple[Text, ...] = ()


class Row(Record):
    """One line of `rows.jsonl`.

    instructions: Index | None
    check: the golden texts on the device that was timed, against the checkpoint's outputs.
    """

    schema_version: Literal["2"] = SCHEMA_VERSION
    run_id: Name
    started_utc: Text
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
    instructions: Index | None = None
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
