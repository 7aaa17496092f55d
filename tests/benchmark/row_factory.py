"""Rows as a benchmark writes them, made up, for what reads rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark import Row, statistics
from benchmark.schema import (
    Accuracy,
    Conditions,
    ConditionsPair,
    DeviceInfo,
    InputsInfo,
    Latency,
    Memory,
    Model,
    ProtocolInfo,
    Runtime,
    Tool,
    Validity,
)

ENGINES = {"onnx": "onnxruntime", "tflite": "litert", "checkpoint": "pytorch"}
ROUNDS = 32


def made_row(
    name: str = "student",
    form: str = "onnx",
    precision: str = "fp32",
    *,
    ms: float = 10.0,
    threads: int = 1,
    length: int = 128,
    batch: int = 1,
    role: str = "artifact",
    run: str = "run-a",
    device: str = "Board",
    kind: str = "real",
    size: int = 1_000_000,
    accuracy: float | None = None,
    samples: int | None = 872,
    speed: np.ndarray[Any, Any] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
    **changes: Any,
) -> Row:
    """A row of `rounds` rounds of 4 runs around `ms` milliseconds, 2 % apart.

    speed: what the machine multiplied every duration by, a factor a round.
    """
    values = {
        "run_id": run,
        "started_utc": "2025-01-01T00:00:00Z",
        "tool": Tool(name="edge-encoders", version="0"),
        "role": role,
        "model": Model(
            id=f"{name}/{form}-{precision}" if role == "artifact" else name,
            format=form,
            precision=precision,
            target={"onnx": "onnxruntime", "tflite": "litert"}.get(form),
            sha256=f"{name}-{form}-{precision}",
            bytes=size,
            arch="bert",
        ),
        "runtime": Runtime(name=ENGINES[form], version="1", provider="CPU", threads=threads),
        "device": made_device(device, kind),
        "inputs": InputsInfo(
            dataset="golden",
            sha256="f" * 64,
            batch=batch,
            samples=6,
            seq_len=length,
            real_len_p50=12.0,
        ),
        "protocol": ProtocolInfo(
            preset="quick", min_runs=64, min_s=6, max_s=12, rounds=rounds, seed=0
        ),
        "conditions": ConditionsPair(before=Conditions(at_utc="2025-01-01T00:00:00Z")),
        "latency_ms": made_latency(ms, rounds=rounds, speed=speed, seed=seed),
        "memory": Memory(peak_rss_mb=60.0, delta_mb=20.0),
        "accuracy": None
        if accuracy is None
        else Accuracy(
            metric="accuracy", value=accuracy, engine=ENGINES[form], on_device=True, samples=samples
        ),
        "validity": Validity(status="valid"),
    }
    return Row(**{**values, **changes})


def made_device(name: str, kind: str = "real", **changes: Any) -> DeviceInfo:
    values: Mapping[str, Any] = {
        "driver": "local",
        "kind": kind,
        "model": name,
        "soc": None,
        "abi": "aarch64",
        "cores": 4,
        "os": "Linux",
        "ram_mb": 4096,
    }
    return DeviceInfo(**{**values, **changes})


def made_latency(
    ms: float,
    *,
    rounds: int = ROUNDS,
    speed: np.ndarray[Any, Any] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Latency:
    random = np.random.default_rng(seed)
    factors = np.ones(rounds) if speed is None else speed
    raw = (ms * 1e6 * factors[:, None] * random.normal(1, 0.02, (rounds, 4))).astype(np.int64)
    values = raw.reshape(-1) / 1e6
    figures: dict[str, Any] = {
        "load": 3.0,
        "first": 1.5 * ms,
        "n": values.size,
        "mean": values.mean(),
        "p50": np.median(values),
        "p90": np.percentile(values, 90),
        "p95": np.percentile(values, 95),
        "min": values.min(),
        "max": values.max(),
        "mad": statistics.median_deviation(values),
        "ci95": (0.99 * np.median(values), 1.01 * np.median(values)),
        "raw_ns": tuple(raw.reshape(-1).tolist()),
        "blocks": tuple((number, 4) for number in range(rounds)),
    }
    return Latency(**{**figures, **changes})
