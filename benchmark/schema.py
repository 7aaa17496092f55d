"""One row of results: a model, an engine, a device, and all measurements of it."""

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
    """The timed model.

    target: device family that the artifact was converted for; None for other models.
    bytes_zip: after deflate, level 6, as in an app's package; None for baselines.
    params: parameters of the source checkpoint.
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
    """The inference engine and its settings.

    affinity: processors that the process may use. nodes: graph nodes by execution provider.
    bytes: size of the engine's libraries on that device; an app ships its own build of them.
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
    """The device.

    driver: connection to the device: local, ssh, adb, browser ... address: identifier of the device
    for that driver. kind: only a "real" device can give valid latencies. details: further
    properties that the driver reports.
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
    """The model inputs.

    batch: texts per inference. samples: number of texts. seq_len: tokens of the longest input,
    padding included. padding: "fixed" if every input has that length, "shortest" if each has the
    shortest length that the model accepts. real_len_p50: median length without padding.
    """

    dataset: Text | None
    sha256: Text | None
    batch: Count
    samples: Index | None
    seq_len: Count | None
    padding: Literal["fixed", "shortest"] = "fixed"
    real_len_p50: Amount | None


class ProtocolInfo(Record):
    """The measurement protocol, see `benchmark.config.Protocol`; unknown values are None.

    warmup: runs before the first turn. order: order in which the models take turns.
    interruptions: number of times that the measurement was interrupted and resumed.
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
    """The device's state at one moment; values that cannot be read are None.

    load_average: over 1, 5 and 15 minutes. frequency_mhz: current lowest and highest core.
    thermal_status: throttling level in the system's own words, such as "none" or "severe".
    battery_percent, charging: of a device that has a battery.
    busy_s: processor seconds used by all programs since the machine started.
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
    """Device state before and after the comparison that a row is part of.

    other_cores: mean number of processor cores kept busy by other programs in between.
    """

    before: Conditions | None = None
    after: Conditions | None = None
    other_cores: Amount | None = None


class Latency(Record):
    """Milliseconds for one inference.

    load: opening the model. first: the first inference. All other values are of the n recorded
    runs after warm-up; p50 to p99 interpolate linearly; p99 needs 100 runs. p50: None only in
    imported rows, if their tool reports a mean or another percentile alone.
    recorded: content of `raw_ns`: each of the "runs"; the median of each of the "turns" if the tool
    does not report single runs, so that there are no other percentiles; or "nothing".
    p90_early_stopping: MLPerf's estimate, which the true 90th percentile exceeds with a
    probability of at most 1 %; needs 64 runs.
    mad: median absolute deviation from p50. ci95: 95 % bootstrap interval of p50 over rounds.
    drift: median of the last quarter of runs / median of the first - 1.
    total_s: all recorded runs together, if each text of a data file was run equally often.
    raw_ns: recorded values in nanoseconds, in order; blocks: (round, number of values) of them.
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
    """Speed-up of a row over a baseline: p50 of the baseline / p50 of the row.

    Each p50 is of all recorded runs, as the rows show it. ci95: 95 % interval, which holds the
    value; rounds are resampled in pairs. If one of both skipped rounds, the interval also covers
    the ratio of the rounds in which both were timed.
    indistinguishable: the interval includes 1, or there were too few rounds for one.
    paired: False if the baseline was timed in another run: the state of the machine may have
    changed in between, which the interval does not cover.
    """

    value: Positive
    ci95: Interval | None
    baseline: Name
    engine: Name
    indistinguishable: bool
    paired: bool = True


class Memory(Record):
    """Memory of the model's process, in units of 10^6 bytes.

    peak_rss_mb: peak resident memory. delta_mb: that peak minus the resident memory of the process
    and the engine's library before loading the model. pss_mb: Android's proportional set size.
    wasm_mb: peak WebAssembly memory of engine and model in a browser.
    """

    peak_rss_mb: Amount | None = None
    delta_mb: Figure | None = None
    pss_mb: Amount | None = None
    wasm_mb: Amount | None = None


class Stage(Record):
    """Milliseconds of one stage of the pipeline, over n texts at batch 1."""

    p50: Amount
    p90: Amount
    n: Count


class Stages(Record):
    """Stage times from text to output, each text at its timed length, from separate runs.

    e2e: end to end: tokenization, inference, and the work in between.
    """

    tokenize: Stage
    infer: Stage
    e2e: Stage


class Stretch(Record):
    """A part of a sustained run: n runs from `start_s` to `end_s` seconds after its start."""

    start_s: Amount
    end_s: Amount
    n: Count
    p50: Positive
    p90: Amount | None = None
    temperature_c: Figure | None = None
    frequency_mhz: tuple[Amount, Amount] | None = None
    thermal_status: Text | None = None


class Operator(Record):
    """One operator type in a profile, from separate runs.

    count, total_ms: executions and milliseconds per inference. share: of all operators' time.
    """

    type: Text
    count: Index
    total_ms: Amount
    share: Share


class Accuracy(Record):
    """The task's metric on the same artifact.

    engine: the engine of the evaluation, which may differ from the timed one. on_device: whether
    the evaluation ran on the timed device. ref: the checkpoint's value.
    """

    metric: Name
    value: Figure
    engine: Text
    on_device: bool = False
    samples: Index | None = None
    ref: Figure | None = None
    max_abs_diff: Amount | None = None


class Validity(Record):
    """Validity of the latency.

    valid: it may be quoted. limited: only with the reservations in `reasons`. invalid: not at all.
    not_measured: no latency, for the reasons given.
    """

    status: Literal["valid", "limited", "invalid", "not_measured"]
    reasons: tuple[Text, ...] = ()


class Row(Record):
    """One line of `rows.jsonl`.

    instructions: of one inference, counted by an emulator.
    check: outputs of the golden texts on the timed device, against the checkpoint's outputs.
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
    """Return the JSON Schema of a row; `benchmark/row.schema.json` is a copy."""
    schema = Row.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
