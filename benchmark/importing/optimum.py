"""optimum-benchmark: `benchmark.json` or `benchmark_report.json` of an inference scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from benchmark.importing.base import (
    UNKNOWN,
    ResultFile,
    ToolResult,
    device_of,
    precision_in,
    row_of,
    runs_latency,
)
from benchmark.schema import DeviceInfo, Latency, Memory, Row, Tool

FILES = ("benchmark.json", "benchmark_report.json")
_CONFIG_FILE = "benchmark_config.json"
_FORMATS = {"pytorch": "checkpoint", "onnxruntime": "onnx"}
_NO_FORWARD = "it holds no forward passes: only encoders' inference can be shown"


def read(file: ResultFile) -> tuple[Row, ...] | None:
    """Read one row, of the `forward` passes, whose single runs are in the report."""
    values = file.json
    report = values.get("report", values)
    if not isinstance(report, dict) or not _is_report(report):
        return None
    config = values.get("config") or _beside(file)
    return (row_of(file, _tool_result(file, report, config)),)


def _is_report(report: Mapping[str, Any]) -> bool:
    """Return True if all parts of a report have a latency, memory and throughput."""
    parts = [part for part in report.values() if isinstance(part, dict)]
    return bool(parts) and all({"latency", "memory", "throughput"} <= set(part) for part in parts)


def _beside(file: ResultFile) -> dict[str, Any]:
    """Read the configuration file beside a report."""
    try:
        return json.loads((file.path.parent / _CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _tool_result(
    file: ResultFile, report: Mapping[str, Any], config: Mapping[str, Any]
) -> ToolResult:
    engine, scenario = config.get("backend") or {}, config.get("scenario") or {}
    environment = config.get("environment") or {}
    shapes = scenario.get("input_shapes") or {}
    name = str(engine.get("name") or UNKNOWN)
    model = PurePosixPath(str(engine.get("model") or config.get("name") or file.path.stem)).name
    latency = _latency(report)
    dtype = _dtype(engine)
    return ToolResult(
        tool=Tool(
            name="optimum-benchmark",
            version=str(environment.get("optimum_benchmark_version") or UNKNOWN),
        ),
        name=model if dtype is None or precision_in(model) != UNKNOWN else f"{model}-{dtype}",
        format=_FORMATS.get(name, UNKNOWN),
        engine=name,
        version=engine.get("version"),
        provider=str(engine.get("device") or "").upper() or None,
        threads=engine.get("intra_op_num_threads"),
        device=_device(engine, environment),
        batch=shapes.get("batch_size") or 1,
        seq_len=shapes.get("sequence_length"),
        warmup=scenario.get("warmup_runs"),
        min_runs=scenario.get("iterations"),
        min_s=scenario.get("duration"),
        latency=latency,
        memory=_memory(report.get("forward") or {}),
        reasons=("its inputs are random numbers",),
        untimed=_NO_FORWARD if latency is None else None,
    )


def _latency(report: Mapping[str, Any]) -> Latency | None:
    runs_s = _values(report, "forward")
    if not runs_s:
        return None
    load, first = (_values(report, part) for part in ("load_model", "first_forward"))
    load = load or _values(report, "load")
    return runs_latency(
        [value * 1e9 for value in runs_s],
        load=1e3 * load[0] if load else None,
        first=1e3 * first[0] if first else None,
    )


def _values(report: Mapping[str, Any], part: str) -> list[float]:
    """Return the seconds of each run of a part."""
    latency = (report.get(part) or {}).get("latency") or {}
    scale = {"s": 1.0, "ms": 1e-3}[latency.get("unit", "s")]
    return [value * scale for value in latency.get("values") or ()]


def _memory(part: Mapping[str, Any]) -> Memory | None:
    peak = (part.get("memory") or {}).get("max_ram")
    return None if peak is None else Memory(peak_rss_mb=peak)


def _dtype(engine: Mapping[str, Any]) -> str | None:
    """Return the precision in the configuration; PyTorch's default is fp32."""
    names = {"float32": "fp32", "float16": "fp16"}
    default = "float32" if engine.get("name") == "pytorch" else None
    return names.get(str(engine.get("torch_dtype") or default))


def _device(engine: Mapping[str, Any], environment: Mapping[str, Any]) -> DeviceInfo:
    gpus = list(environment.get("gpu") or [])
    on_gpu = engine.get("device") == "cuda" and bool(gpus)
    ram_mb = environment.get("cpu_ram_mb")
    return device_of(
        str(gpus[0]) if on_gpu else str(environment.get("cpu") or "").strip(),
        abi=environment.get("machine"),
        cores=environment.get("cpu_count"),
        os=environment.get("platform"),
        ram_mb=None if ram_mb is None else round(ram_mb),
    )
