"""LiteRT's own tools: `benchmark_model`'s log, result and profile, `benchmark_litert_model`'s JSON.

The two messages are read by their field numbers, as the .proto files of TensorFlow Lite number
them (tensorflow/lite/tools/benchmark/proto/benchmark_result.proto and
tensorflow/lite/profiling/proto/profiling_info.proto).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmark.devices.adb.logs import Runs, read_model_log, read_operators
from benchmark.importing.base import (
    ResultFile,
    ToolResult,
    file_stem,
    mib_bytes,
    operators_of,
    row_of,
)
from benchmark.importing.protobuf import Message, WireError, floats, integers, messages, texts
from benchmark.schema import Latency, Memory, Operator, Row, Tool

_GRAPH = re.compile(r"\bGraph: \[([^\]]*)\]")
_THREADS = re.compile(r"(?:#threads used for CPU inference|\bNum threads): \[(\d+)\]")
_SIZE = re.compile(r"The input model file size \(MB\): ([0-9.]+)")
_MIN_RUNS = re.compile(r"\bMin num runs: \[(\d+)\]")
_DELEGATES = {
    "GPU": re.compile(r"\bUse gpu *: \[(?:1|true)\]", re.IGNORECASE),
    "NNAPI": re.compile(r"\bUse NNAPI *: \[(?:1|true)\]", re.IGNORECASE),
    "Hexagon": re.compile(r"\bUse Hexagon *: \[(?:1|true)\]", re.IGNORECASE),
    "Core ML": re.compile(r"\bUse Core ?ML *: \[(?:1|true)\]", re.IGNORECASE),
}
_NO_MEDIAN = "its median is not given"
_RANDOM = "the tool fills inputs with random numbers unless it is given files"


def read_log(file: ResultFile) -> tuple[Row, ...] | None:
    """Read the output of `benchmark_model`, also through adb logcat."""
    text = file.text or ""
    graph = _GRAPH.search(text)
    if graph is None or not re.search(r"nference timings in us|Running benchmark for", text):
        return None
    # Tables of operators end with statistics of their own.
    log = read_model_log(text.partition("Profiling Info for")[0])
    if log.recorded is None or log.recorded.count == 0:
        raise file.broken("this log of benchmark_model ends before its result")
    runs, threads, size = log.recorded, _THREADS.search(text), _SIZE.search(text)
    minimum = _MIN_RUNS.search(text)
    spent = {
        operator.type: (operator.count, operator.total_ms) for operator in read_operators(text)
    }
    known = log.peak_mb is not None or log.delta_mb is not None
    result = ToolResult(
        tool=Tool(name="benchmark_model", version="unknown"),
        name=file_stem(graph.group(1)),
        format="tflite",
        engine="litert",
        provider=next((name for name, used in _DELEGATES.items() if used.search(text)), "CPU"),
        threads=None if threads is None else int(threads.group(1)),
        size_bytes=mib_bytes(None if size is None else float(size.group(1))),
        warmup=None if log.warm is None else log.warm.count,
        min_runs=None if minimum is None else int(minimum.group(1)),
        latency=_runs_latency(runs, load=log.init_ms, first=log.first_ms),
        memory=Memory(peak_rss_mb=log.peak_mb, delta_mb=log.delta_mb) if known else None,
        operators=operators_of(spent),
        reasons=(_RANDOM, *([] if runs.median else [_NO_MEDIAN])),
    )
    return (row_of(file, result),)


def _runs_latency(runs: Runs, *, load: float | None, first: float | None) -> Latency:
    def ms(microseconds: float | None) -> float | None:
        return None if microseconds is None else microseconds / 1e3

    return Latency(
        load=load,
        first=first,
        n=runs.count,
        mean=ms(runs.average),
        # Whole microseconds: 0 is what took less than one.
        p50=ms(runs.median) or None,
        p95=ms(runs.p95),
        min=ms(runs.minimum),
        max=ms(runs.maximum),
        recorded="nothing",
    )


def read_json(file: ResultFile) -> tuple[Row, ...] | None:
    """Read the file of `benchmark_litert_model --result_json` of ai-edge-litert."""
    values = file.json
    latency = values.get("latency")
    if "accelerators" not in values or not isinstance(latency, dict) or "median_ms" not in latency:
        return None
    length = re.fullmatch(r"length_(\d+)", str(values.get("signature")))
    result = ToolResult(
        tool=Tool(name="benchmark_litert_model", version="unknown"),
        name=file_stem(str(values.get("model"))),
        format="tflite",
        engine="litert",
        provider=" and ".join(values["accelerators"]) or None,
        threads=values.get("num_threads"),
        size_bytes=mib_bytes(values.get("model_size_mb")),
        seq_len=None if length is None else int(length.group(1)),
        warmup=latency.get("num_warmup_runs"),
        latency=_json_latency(latency),
        reasons=("the tool fills inputs with random numbers",),
    )
    return (row_of(file, result),)


def _json_latency(latency: Mapping[str, Any]) -> Latency:
    return Latency(
        load=latency.get("init_ms"),
        first=latency.get("warmup_first_ms"),
        n=latency.get("num_runs") or 0,
        mean=latency.get("avg_ms"),
        p50=latency["median_ms"] or None,
        p95=latency.get("p95_ms"),
        min=latency.get("min_ms"),
        max=latency.get("max_ms"),
        recorded="nothing",
    )


def read_result(file: ResultFile) -> tuple[Row, ...] | None:
    """Read a BenchmarkResult message, the file of `benchmark_model --result_file_path`."""
    try:
        result = Message.parse(file.content)
        latency, memory, other = (_only(result, number) for number in (2, 3, 4))
        ms = floats(latency)
        if not ms or set(ms) - set(range(1, 11)):
            return None
        name = next(iter(texts(result, 1)), "") or file.path.stem
        kilobytes, megabytes = integers(memory), floats(memory)
        counts, misc = integers(other), floats(other)
    except WireError:
        return None
    delta, peak = kilobytes.get(2), megabytes.get(3)
    imported = ToolResult(
        tool=Tool(name="benchmark_model", version="unknown"),
        name=name,
        format="tflite",
        engine="litert",
        size_bytes=mib_bytes(misc.get(1)),
        warmup=counts.get(3),
        latency=Latency(
            load=ms.get(8),
            first=ms.get(9),
            n=counts.get(2, 0),
            mean=ms.get(1),
            p50=ms.get(5) or None,
            p95=ms.get(7),
            min=ms.get(2),
            max=ms.get(3),
            recorded="nothing",
        ),
        memory=None
        if delta is None and peak is None
        else Memory(
            peak_rss_mb=None if peak is None else peak * 1.048576,
            delta_mb=None if delta is None else delta * 1024 / 1e6,
        ),
        reasons=(_RANDOM, *([] if ms.get(5) else [_NO_MEDIAN])),
    )
    return (row_of(file, imported),)


def _only(message: Message, number: int) -> Message:
    """Return the message in a field; an empty one if it is absent."""
    return next(iter(messages(message, number)), Message({}))


def read_profile(file: ResultFile) -> tuple[Row, ...] | None:
    """Read a BenchmarkProfilingData message, of `--op_profiling_output_mode=proto`."""
    try:
        profile = Message.parse(file.content)
        operators = _operators(profile)
        name = next(iter(texts(profile, 1)), "") or file.path.stem
    except WireError:
        return None
    if not operators:
        return None
    result = ToolResult(
        tool=Tool(name="benchmark_model", version="unknown"),
        name=file_stem(name),
        format="tflite",
        engine="litert",
        operators=operators,
        untimed="an operator profile, which tells no latency of a whole inference",
    )
    return (row_of(file, result),)


def _operators(profile: Message) -> tuple[Operator, ...]:
    """Return operators of recorded runs; delegates' internal nodes, listed twice, are left out."""
    spent: dict[str, tuple[int, float]] = {}
    for runtime in messages(profile, 3):
        for subgraph in messages(runtime, 1):
            for node in messages(subgraph, 3):
                kind = next(iter(texts(node, 1)), "unknown")
                calls = integers(node).get(4, 1)
                average_us = integers(_only(node, 2)).get(3, 0)
                count, total_ms = spent.get(kind, (0, 0.0))
                spent[kind] = (count + calls, total_ms + calls * average_us / 1e3)
    return operators_of(spent)
