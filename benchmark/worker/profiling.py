"""Profile of a model's operators, in separate runs, since profiling slows them down."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.engines.onnxruntime import load
from edge.process.wire import Arrays

# Profiled runs, after as many warm-up runs.
_RUNS = 8
_NS_PER_MS = 1e6


def operators(
    engine: str, path: Path, threads: int, feeds: Sequence[Arrays]
) -> list[dict[str, Any]] | None:
    """Profile operators by type, the slowest first, as `benchmark.schema.Operator`.

    None for an engine without a profiler in Python, such as LiteRT.
    """
    profilers = {"onnxruntime": _onnxruntime, "pytorch": _pytorch}
    if engine not in profilers:
        return None
    runs = [feeds[number % len(feeds)] for number in range(_RUNS)]
    return _per_inference(profilers[engine](path, threads, runs), len(runs))


def onnxruntime_operators(file: Path, runs: int) -> list[dict[str, Any]]:
    """Read operators from an ONNX Runtime profile of `runs` runs after as many warm-up runs."""
    return _per_inference(_kernels(file), runs)


# Operator type -> (how often it ran, nanoseconds), over all runs.
OperatorTimes = Mapping[str, tuple[int, float]]


def _per_inference(spent: OperatorTimes, runs: int) -> list[dict[str, Any]]:
    total = sum(duration for _, duration in spent.values()) or 1.0
    operators = [
        {
            "type": kind,
            "count": round(count / runs),
            "total_ms": duration / runs / _NS_PER_MS,
            "share": duration / total,
        }
        for kind, (count, duration) in spent.items()
    ]
    return sorted(operators, key=lambda operator: -float(operator["total_ms"]))


def _onnxruntime(path: Path, threads: int, runs: Sequence[Arrays]) -> OperatorTimes:
    onnxruntime = load()
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        for feed in (*runs, *runs):
            session.run(None, feed)
        return _kernels(Path(session.end_profiling()))


def _kernels(file: Path) -> OperatorTimes:
    events = json.loads(file.read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    # The first half is the warm-up; every run has the same kernels.
    spent: dict[str, tuple[int, float]] = {}
    for event in kernels[len(kernels) // 2 :]:
        _add(spent, event["args"]["op_name"], 1000.0 * event["dur"])
    return spent


def _pytorch(path: Path, threads: int, runs: Sequence[Arrays]) -> OperatorTimes:
    import torch

    from edge.engines import get_engine

    session = get_engine("pytorch").open(path, threads=threads)
    for feed in runs:
        session.run(feed)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for feed in runs:
            session.run(feed)
    spent: dict[str, tuple[int, float]] = {}
    for event in profile.key_averages():
        # Self time: operators call others.
        if event.self_cpu_time_total > 0:
            spent[event.key] = (event.count, 1000.0 * event.self_cpu_time_total)
    return spent


def _add(spent: dict[str, tuple[int, float]], kind: str, duration_ns: float) -> None:
    count, total = spent.get(kind, (0, 0.0))
    spent[kind] = (count + 1, total + duration_ns)
