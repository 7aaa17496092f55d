"""MLPerf: logs of loadgen, and exports of the mobile app.

Percentiles are loadgen's: the run at that rank, while rows of this program interpolate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from benchmark.importing.base import ResultFile, ToolResult, device_of, file_stem, row_of
from benchmark.schema import Accuracy, DeviceInfo, Latency, Row, Tool

FILES = ("mlperf_log_detail.txt", "mlperf_log_summary.txt")
_MARK = ":::MLLOG "
# The only scenario in which a query is one inference with no other query waiting.
_SCENARIO = "SingleStream"
_REFUSED = "loadgen calls its result INVALID"
_SUMMARY = re.compile(r"^ *([A-Za-z0-9. _/()-]+?) *: *(.+?) *$", re.MULTILINE)
_PROCESSED = re.compile(r"Processed at least \d+ queries \((\d+)\)")
_EARLY = re.compile(r"Early stopping 90(?:\.0+)?th percentile estimate: *(\d+)")


def read_summary(file: ResultFile) -> tuple[Row, ...] | None:
    """Read `mlperf_log_summary.txt`."""
    text = file.text or ""
    if "MLPerf Results Summary" not in text:
        return None
    values = dict(_SUMMARY.findall(text))
    early, count = _EARLY.search(text), _PROCESSED.search(text)
    latency = {
        name: _ms(values.get(key))
        for name, key in (
            ("mean", "Mean latency (ns)"),
            ("min", "Min latency (ns)"),
            ("max", "Max latency (ns)"),
            ("p50", "50.00 percentile latency (ns)"),
            ("p90", "90.00 percentile latency (ns)"),
            ("p95", "95.00 percentile latency (ns)"),
            ("p99", "99.00 percentile latency (ns)"),
        )
    } | {"p90_early_stopping": _ms(None if early is None else early.group(1))}
    result = ToolResult(
        tool=Tool(name="MLPerf loadgen", version="unknown"),
        name=values.get("SUT name", file.path.stem),
        format="unknown",
        engine="unknown",
        min_runs=_whole(values.get("min_query_count")),
        min_s=_seconds(values.get("min_duration (ms)")),
    )
    number = None if count is None else int(count.group(1))
    valid = values.get("Result is") == "VALID"
    return (_log_row(file, result, values.get("Scenario"), latency, number, valid=valid),)


def read_detail(file: ResultFile) -> tuple[Row, ...] | None:
    """Read `mlperf_log_detail.txt`."""
    if not (file.text or "").startswith(_MARK):
        return None
    values = dict(_entries(file))
    if "result_validity" not in values:
        raise file.broken("this log of loadgen ends before its result")
    latency = {
        name: _ms(values.get(f"result_{key}_latency_ns"))
        for name, key in (
            ("mean", "mean"),
            ("min", "min"),
            ("max", "max"),
            ("p50", "50.00_percentile"),
            ("p90", "90.00_percentile"),
            ("p95", "95.00_percentile"),
            ("p99", "99.00_percentile"),
        )
    } | {"p90_early_stopping": _ms(values.get("early_stopping_latency_ss"))}
    result = ToolResult(
        tool=Tool(name="MLPerf loadgen", version=str(values.get("loadgen_version", "unknown"))),
        name=str(values.get("sut_name", file.path.stem)),
        format="unknown",
        engine="unknown",
        started_utc=values.get("test_datetime"),
        min_runs=values.get("effective_min_query_count"),
        min_s=_seconds(values.get("effective_min_duration_ms")),
    )
    scenario, number = values.get("effective_scenario"), values.get("result_query_count")
    valid = values["result_validity"] == "VALID"
    return (_log_row(file, result, scenario, latency, number, valid=valid),)


def _entries(file: ResultFile) -> list[tuple[str, Any]]:
    lines = (file.text or "").splitlines()
    try:
        entries = [json.loads(line.removeprefix(_MARK)) for line in lines if line.strip()]
        return [(entry["key"], entry["value"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise file.broken("this log of loadgen is cut or altered") from None


def _log_row(
    file: ResultFile,
    result: ToolResult,
    scenario: str | None,
    latency: Mapping[str, float | None],
    count: int | None,
    *,
    valid: bool,
) -> Row:
    """Return the row of a log; summary and detail log of one run give the same row key."""
    changes: dict[str, Any] = {"refused": None if valid else _REFUSED}
    if scenario == _SCENARIO:
        figures = {name: value for name, value in latency.items() if value is not None}
        changes["latency"] = Latency(
            n=count or 0, p50=latency["p50"], recorded="nothing", **_without(figures, "p50")
        )
        marks = [str(figures.get(name)) for name in ("min", "mean", "max")]
        changes["run_id"] = f"imported-loadgen-{'-'.join(marks)}"
    else:
        changes["untimed"] = f"scenario {scenario} of loadgen measures throughput, not latency"
    return row_of(file, _with(result, changes))


def read_mobile(file: ResultFile) -> tuple[Row, ...] | None:
    """Read the result file of the MLPerf Mobile app: one row for each of its tasks."""
    values = file.json
    if not {"meta", "results", "environment_info"} <= set(values):
        return None
    device = _device(values["environment_info"])
    version = str((values.get("build_info") or {}).get("version") or "unknown")
    tool = Tool(name="MLPerf Mobile", version=version)
    return tuple(_task(file, result, tool, device) for result in values["results"])


def _task(file: ResultFile, result: Mapping[str, Any], tool: Tool, device: DeviceInfo) -> Row:
    settings, engine = result["backend_settings"], result["backend_info"]
    run = result.get("performance_run") or {}
    loadgen = run.get("loadgen_info") or {}
    extra = {setting["id"]: setting["value"] for setting in settings.get("extra_settings") or ()}
    path = str(settings.get("model_path") or result["benchmark_id"])
    imported = ToolResult(
        tool=tool,
        name=f"{result['benchmark_id']}/{file_stem(path)}",
        format="tflite" if PurePosixPath(path).suffix == ".tflite" else "unknown",
        engine=str(engine.get("backend_name") or "unknown"),
        provider=settings.get("accelerator_desc") or engine.get("accelerator_name"),
        threads=_whole(extra.get("num_threads")),
        device=device,
        batch=settings.get("batch_size") or 1,
        dataset=(run.get("dataset") or {}).get("name"),
        min_runs=result.get("min_samples"),
        min_s=result.get("min_duration"),
        accuracy=_accuracy(result, str(engine.get("backend_name") or "unknown")),
        started_utc=run.get("start_datetime"),
    )
    if result.get("loadgen_scenario") != _SCENARIO:
        reason = f"scenario {result.get('loadgen_scenario')} of loadgen measures throughput"
        return row_of(file, _with(imported, {"untimed": f"{reason}, not latency"}))
    latency = _mobile_latency(run, loadgen)
    refused = None if loadgen.get("validity", True) else _REFUSED
    reasons = ("its median is not given",)
    return row_of(
        file, _with(imported, {"latency": latency, "refused": refused, "reasons": reasons})
    )


def _mobile_latency(run: Mapping[str, Any], loadgen: Mapping[str, Any]) -> Latency | None:
    """Return the app's latency: p90 = 1 / its throughput in a single stream."""
    throughput = run.get("throughput")
    rate = throughput.get("value") if isinstance(throughput, dict) else throughput
    count, duration_s = run.get("measured_samples"), loadgen.get("duration")
    if not rate:
        return None
    return Latency(
        n=count or 0,
        mean=1e3 * duration_s / count if count and duration_s else None,
        p50=None,
        p90=1e3 / rate,
        recorded="nothing",
    )


def _accuracy(result: Mapping[str, Any], engine: str) -> Accuracy | None:
    run = result.get("accuracy_run") or {}
    accuracy = run.get("accuracy")
    if not accuracy:
        return None
    return Accuracy(
        metric=f"accuracy of {result['benchmark_id']}",
        value=accuracy["normalized"],
        engine=engine,
        on_device=True,
        samples=run.get("measured_samples"),
    )


def _device(environment: Mapping[str, Any]) -> DeviceInfo:
    system = environment.get("platform")
    properties = (environment.get("value") or {}).get(system) or {}
    return device_of(
        properties.get("model_name") or properties.get("cpu_full_name"),
        soc=properties.get("soc_name") or properties.get("proc_cpuinfo_soc_name"),
        os=f"{system} {properties.get('os_version') or ''}".strip(),
    )


def _with(result: ToolResult, changes: Mapping[str, Any]) -> ToolResult:
    return ToolResult(**{**vars(result), **changes})


def _without(figures: Mapping[str, float], name: str) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != name}


def _ms(nanoseconds: Any) -> float | None:
    """Return milliseconds; None for 0 too, which loadgen writes for unknown values."""
    return int(nanoseconds) / 1e6 if nanoseconds and str(nanoseconds).isdigit() else None


def _whole(value: Any) -> int | None:
    return int(value) if value is not None and str(value).isdigit() else None


def _seconds(milliseconds: Any) -> float | None:
    value = _whole(milliseconds)
    return None if value is None else value / 1e3
