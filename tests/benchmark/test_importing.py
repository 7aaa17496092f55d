"""Results of other programs: small files as those programs write them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmark import Report, Row, read_any, read_several
from benchmark.importing import import_rows
from benchmark.report.render import render
from edge.errors import DataError

# As benchmark_model prints it, every figure of its own; through adb logcat with a prefix a line.
LOG = """\
INFO: STARTING!
INFO: Min num runs: [25]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/student-int8.tflite]
INFO: #threads used for CPU inference: [4]
INFO: Use gpu: [0]
INFO: Loaded model /data/local/tmp/student-int8.tflite
INFO: The input model file size (MB): 16.7222
INFO: Initialized session in 21.5ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds \
but terminate if exceeding 150 seconds.
INFO: count=80 first=9100 curr=6200 min=6100 max=9100 avg=6230.5 std=300 \
p5=6110 median=6190 p95=6500

INFO: Running benchmark for at least 25 iterations and at least 1 seconds \
but terminate if exceeding 150 seconds.
INFO: count=160 first=6201 curr=6188 min=6090 max=7300 avg=6240.25 std=90 \
p5=6101 median=6195 p95=6420

INFO: Inference timings in us: Init: 21500, First inference: 9100, \
Warmup (avg): 6230.5, Inference (avg): 6240.25
INFO: Memory footprint delta from the start of the tool (MB): init=18.5 overall=25.0
"""
OLD_STATISTICS = "count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=9"

# Written by mlcommons-loadgen 6.0.17 over an ONNX Runtime session, shortened.
SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 5797739
Result is : VALID
  Min duration satisfied : Yes
Early Stopping Result:
 * Processed at least 64 queries (298).
 * Would discard 16 highest latency queries.
 * Early stopping 90.0th percentile estimate: 12607458

================================================
Additional Stats
================================================
QPS w/ loadgen overhead         : 586.80

Min latency (ns)                : 259034
Max latency (ns)                : 24657571
Mean latency (ns)               : 1696115
50.00 percentile latency (ns)   : 265334
90.00 percentile latency (ns)   : 5797739
95.00 percentile latency (ns)   : 12651384
99.00 percentile latency (ns)   : 22759656

================================================
Test Parameters Used
================================================
min_duration (ms): 500
min_query_count : 100
"""
DETAIL: Mapping[str, Any] = {
    "loadgen_version": "6.0.17 @ d6147c7eb7",
    "test_datetime": "2026-11-21T16:03:20Z",
    "sut_name": "PySUT",
    "effective_scenario": "SingleStream",
    "effective_min_duration_ms": 500,
    "effective_min_query_count": 100,
    "result_validity": "VALID",
    "result_query_count": 298,
    "early_stopping_latency_ss": 12607458,
    "result_min_latency_ns": 259034,
    "result_max_latency_ns": 24657571,
    "result_mean_latency_ns": 1696115,
    "result_50.00_percentile_latency_ns": 265334,
    "result_90.00_percentile_latency_ns": 5797739,
    "result_95.00_percentile_latency_ns": 12651384,
    "result_99.00_percentile_latency_ns": 22759656,
}

# Written by optimum-benchmark 0.6.0 for a BERT of two tiny layers in PyTorch, shortened.
OPTIMUM: Mapping[str, Any] = {
    "config": {
        "name": "tiny",
        "backend": {
            "name": "pytorch",
            "version": "2.15.0",
            "model": "models/tinybert",
            "device": "cpu",
            "intra_op_num_threads": None,
            "torch_dtype": None,
        },
        "scenario": {
            "name": "inference",
            "iterations": 10,
            "duration": 1,
            "warmup_runs": 3,
            "input_shapes": {"batch_size": 1, "sequence_length": 16},
        },
        "environment": {
            "cpu": " AMD EPYC",
            "cpu_count": 2,
            "cpu_ram_mb": 25276.514304,
            "machine": "x86_64",
            "platform": "Linux-6.18",
            "optimum_benchmark_version": "0.6.0",
        },
    },
    "report": {
        "load_model": {
            "memory": {"unit": "MB", "max_ram": 917.225472},
            "latency": {"unit": "s", "values": [0.38393240699952], "count": 1},
            "throughput": None,
        },
        "first_forward": {
            "memory": {"unit": "MB", "max_ram": 924.69248},
            "latency": {"unit": "s", "values": [0.1979353569986415], "count": 1},
            "throughput": None,
        },
        "forward": {
            "memory": {"unit": "MB", "max_ram": 925.782016},
            "latency": {
                "unit": "s",
                "values": [0.0015046909975353628, 0.0006615009988308884, 0.0006522769981529564],
                "count": 3,
            },
            "throughput": {"unit": "samples/s", "value": 107.6},
        },
    },
}

# Written by benchmark_litert_model of ai-edge-litert 2.3.0, inputs of ones.
LITERT_JSON: Mapping[str, Any] = {
    "model": "bundle/model-int8.tflite",
    "model_size_mb": 0.49,
    "accelerators": ["CPU"],
    "signature": "length_32",
    "fully_accelerated": False,
    "num_threads": 1,
    "latency": {
        "init_ms": 12.83,
        "warmup_first_ms": 0.28,
        "warmup_avg_ms": 0.17,
        "num_warmup_runs": 5,
        "avg_ms": 0.41,
        "min_ms": 0.13,
        "max_ms": 12.27,
        "median_ms": 0.14,
        "std_ms": 1.65,
        "p5_ms": 0.13,
        "p95_ms": 0.21,
        "num_runs": 60,
    },
    "throughput_mb_s": 0.89,
}

# In the fields of the app's extended-result.schema.json, with figures that fit each other.
MOBILE: Mapping[str, Any] = {
    "meta": {"uuid": "0", "creation_date": "2025-01-01T00:00:00"},
    "results": [
        {
            "benchmark_id": "natural_language_processing",
            "loadgen_scenario": "SingleStream",
            "backend_settings": {
                "accelerator_desc": "CPU",
                "framework": "TFLite",
                "model_path": "https://example.com/mobilebert_int8_384.tflite",
                "batch_size": 0,
                "extra_settings": [{"id": "num_threads", "value": "4"}],
            },
            "backend_info": {"backend_name": "TFLite", "accelerator_name": "CPU"},
            "performance_run": {
                "throughput": {"value": 8.0},
                "dataset": {"name": "Squad V1.1 mini set"},
                "measured_samples": 1024,
                "start_datetime": "2025-01-01T00:00:00",
                "loadgen_info": {"validity": True, "duration": 102.4},
            },
            "accuracy_run": {
                "accuracy": {"normalized": 0.9, "formatted": "90.00"},
                "measured_samples": 100,
            },
            "min_duration": 60.0,
            "min_samples": 1024,
        },
        {
            "benchmark_id": "image_classification_offline",
            "loadgen_scenario": "Offline",
            "backend_settings": {"model_path": "https://example.com/net.tflite", "batch_size": 8},
            "backend_info": {"backend_name": "TFLite"},
            "performance_run": {"throughput": {"value": 892.0}},
            "accuracy_run": None,
        },
    ],
    "environment_info": {
        "platform": "android",
        "value": {"android": {"os_version": "15", "model_name": "Phone", "soc_name": "Chip"}},
    },
    "build_info": {"version": "5.0"},
}


def _one(path: Path) -> Row:
    rows = import_rows(path)
    assert rows is not None
    (row,) = rows
    assert row.role == "imported"
    assert row.model.sha256 is None
    return row


def _written(tmp_path: Path, content: str | bytes | Mapping[str, Any], name: str = "file") -> Path:
    path = tmp_path / name
    if isinstance(content, Mapping):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _detail(values: Mapping[str, Any]) -> str:
    lines = ({"key": key, "value": value, "time_ms": 0.1} for key, value in values.items())
    return "".join(f":::MLLOG {json.dumps(line)}\n" for line in lines)


@pytest.mark.parametrize("prefix", ["", "07-14 13:23:08.133 25289 25289 I tflite  : "])
def test_a_log_of_benchmark_model(tmp_path: Path, prefix: str) -> None:
    text = "".join(prefix + line.removeprefix("INFO: ") + "\n" for line in LOG.splitlines())
    row = _one(_written(tmp_path, text if prefix else LOG))
    latency = row.latency_ms
    assert latency is not None and row.memory is not None
    assert (latency.n, latency.mean, latency.p50) == (160, 6.24025, 6.195)
    assert (latency.p95, latency.min, latency.max) == (6.42, 6.09, 7.3)
    assert (latency.load, latency.first) == (21.5, 9.1)
    assert (latency.p90, latency.ci95, latency.raw_ns) == (None, None, ())
    assert row.memory.delta_mb == pytest.approx(25 * 1.048576)
    assert (row.model.id, row.model.format, row.model.precision) == (
        "student-int8",
        "tflite",
        "int8",
    )
    assert row.model.bytes == round(16.7222 * 2**20)
    assert (row.runtime.name, row.runtime.threads, row.runtime.provider) == ("litert", 4, "CPU")
    assert (row.protocol.warmup, row.protocol.min_runs) == (80, 25)
    assert row.validity.status == "limited"
    assert row.validity.reasons[0].startswith("imported: its inputs, the state of its machine")


def test_a_log_of_an_old_build_has_no_median(tmp_path: Path) -> None:
    lines = [line for line in LOG.splitlines() if "count=" not in line]
    lines.insert(-2, OLD_STATISTICS)
    row = _one(_written(tmp_path, "\n".join(lines)))
    assert row.latency_ms is not None
    assert row.latency_ms.p50 is None
    assert row.latency_ms.mean == pytest.approx(2950.34)
    assert "its median is not given" in row.validity.reasons


def test_a_log_names_its_delegate(tmp_path: Path) -> None:
    row = _one(_written(tmp_path, LOG.replace("Use gpu: [0]", "Use gpu: [1]")))
    assert row.runtime.provider == "GPU"


def test_operators_of_a_log(tmp_path: Path) -> None:
    table = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "====== Summary by node type ======\n"
        "\t [Node type]\t [count]\t [avg ms]\t [avg %]\t [cdf %]\t [mem KB]\t[times called]\n"
        "\t FULLY_CONNECTED\t 36\t 3.000\t 75.0%\t 75.0%\t 0.000\t 36\n"
        "\t SOFTMAX\t 3\t 1.000\t 25.0%\t 100.0%\t 0.000\t 3\n\n"
        "Timings (microseconds): count=160 first=6201 curr=6188 min=6090 max=7300 avg=6000 std=9\n"
    )
    row = _one(_written(tmp_path, LOG + table))
    found = [(one.type, one.count, one.total_ms, one.share) for one in row.operators]
    assert found == [("FULLY_CONNECTED", 36, 3.0, 0.75), ("SOFTMAX", 3, 1.0, 0.25)]
    assert row.latency_ms is not None
    assert (row.latency_ms.p50, row.latency_ms.mean) == (6.195, 6.24025)


def test_a_log_that_was_cut_is_refused(tmp_path: Path) -> None:
    text = LOG.partition("INFO: count=80")[0]
    with pytest.raises(DataError, match="this log of benchmark_model ends before its result"):
        import_rows(_written(tmp_path, text))


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, value: bytes | str | float) -> bytes:
    """A field of a message: text and messages, 32-bit floats, integers."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def test_a_result_message(tmp_path: Path) -> None:
    ms = {1: 6.5, 2: 6.0, 3: 8.0, 4: 0.25, 5: 6.25, 6: 6.125, 7: 7.0, 8: 21.5, 9: 9.0, 10: 6.5}
    latency = b"".join(_field(number, value) for number, value in ms.items())
    memory = _field(1, 1000) + _field(2, 25_000) + _field(3, 50.0)
    misc = _field(1, 16.0) + _field(2, 160) + _field(3, 80)
    data = _field(1, "student-fp16") + _field(2, latency) + _field(3, memory) + _field(4, misc)
    row = _one(_written(tmp_path, data))
    assert row.latency_ms is not None and row.memory is not None
    found = row.latency_ms
    assert (found.mean, found.p50, found.p95, found.n) == (6.5, 6.25, 7.0, 160)
    assert (found.load, found.first) == (21.5, 9.0)
    assert row.memory.delta_mb == pytest.approx(25.6)
    assert row.memory.peak_rss_mb == pytest.approx(50 * 1.048576)
    assert (row.model.id, row.model.precision, row.model.bytes) == (
        "student-fp16",
        "fp16",
        16 << 20,
    )


def test_a_profile_as_litert_writes_it(tmp_path: Path) -> None:
    from ai_edge_litert import profiling_info_pb2 as proto

    profile = proto.BenchmarkProfilingData(model_name="student-int8.tflite")
    graph = profile.runtime_profile.subgraph_profiles.add(subgraph_name="Primary graph")
    for kind, average, calls in (("FULLY_CONNECTED", 500, 1), ("SOFTMAX", 250, 2)) * 2:
        node = graph.per_op_profiles.add(node_type=kind, times_called=calls, name=kind)
        node.inference_microseconds.avg = average
        node.inference_microseconds.count = 50
    initial = profile.init_profile.subgraph_profiles.add()
    initial.per_op_profiles.add(node_type="AllocateTensors").inference_microseconds.avg = 9000
    row = _one(_written(tmp_path, profile.SerializeToString()))
    found = [(one.type, one.count, one.total_ms) for one in row.operators]
    assert sorted(found) == [("FULLY_CONNECTED", 2, 1.0), ("SOFTMAX", 4, 1.0)]
    assert row.latency_ms is None
    assert row.validity.status == "not_measured"
    assert "an operator profile" in row.validity.reasons[0]


def test_the_json_of_litert_s_python_tool(tmp_path: Path) -> None:
    row = _one(_written(tmp_path, LITERT_JSON))
    assert row.latency_ms is not None
    assert (row.latency_ms.p50, row.latency_ms.n, row.latency_ms.load) == (0.14, 60, 12.83)
    assert (row.inputs.seq_len, row.runtime.threads, row.runtime.provider) == (32, 1, "CPU")
    assert "the tool fills inputs with random numbers" in row.validity.reasons


@pytest.mark.parametrize("name", ["summary", "detail"])
def test_logs_of_loadgen(tmp_path: Path, name: str) -> None:
    content = SUMMARY if name == "summary" else _detail(DETAIL)
    row = _one(_written(tmp_path, content))
    latency = row.latency_ms
    assert latency is not None
    assert (latency.n, latency.p50, latency.p90) == (298, 0.265334, 5.797739)
    assert (latency.p95, latency.p99) == (12.651384, 22.759656)
    assert latency.p90_early_stopping == 12.607458
    assert (row.model.id, row.protocol.min_runs, row.protocol.min_s) == ("PySUT", 100, 0.5)
    assert row.validity.status == "limited"


def test_both_logs_of_one_loadgen_run_are_one_row(tmp_path: Path) -> None:
    summary = _written(tmp_path, SUMMARY, "mlperf_log_summary.txt")
    detail = _written(tmp_path, _detail(DETAIL), "mlperf_log_detail.txt")
    assert len(read_several([summary, detail, tmp_path])) == 1


def test_what_loadgen_refuses_is_invalid(tmp_path: Path) -> None:
    text = SUMMARY.replace("Result is : VALID", "Result is : INVALID")
    row = _one(_written(tmp_path, text))
    assert row.validity.status == "invalid"
    assert row.validity.reasons[0] == "loadgen calls its result INVALID"


def test_throughput_is_no_latency(tmp_path: Path) -> None:
    row = _one(_written(tmp_path, SUMMARY.replace("SingleStream", "Offline")))
    assert row.latency_ms is None
    assert row.validity.reasons == ("scenario Offline of loadgen measures throughput, not latency",)


def test_a_detail_log_that_was_cut_is_refused(tmp_path: Path) -> None:
    short = {key: DETAIL[key] for key in list(DETAIL)[:5]}
    with pytest.raises(DataError, match="ends before its result"):
        import_rows(_written(tmp_path, _detail(short)))
    with pytest.raises(DataError, match="cut or altered"):
        import_rows(_written(tmp_path, _detail(DETAIL)[:-20]))


def test_results_of_mlperf_mobile(tmp_path: Path) -> None:
    rows = import_rows(_written(tmp_path, MOBILE))
    assert rows is not None
    nlp, offline = rows
    assert nlp.latency_ms is not None and nlp.accuracy is not None
    # The app's throughput of a single stream is 1 / p90; its mean is seconds over queries.
    assert (nlp.latency_ms.p50, nlp.latency_ms.p90, nlp.latency_ms.mean) == (None, 125.0, 100.0)
    assert nlp.model.id == "natural_language_processing/mobilebert_int8_384"
    assert (nlp.model.precision, nlp.runtime.threads, nlp.inputs.batch) == ("int8", 4, 1)
    assert (nlp.device.model, nlp.device.soc, nlp.device.os) == ("Phone", "Chip", "android 15")
    assert (nlp.accuracy.value, nlp.accuracy.samples) == (0.9, 100)
    assert offline.latency_ms is None
    assert "Offline" in offline.validity.reasons[0]


def test_a_result_of_mlperf_mobile_without_its_parts_is_refused(tmp_path: Path) -> None:
    broken = {**MOBILE, "results": [{"benchmark_id": "x"}]}
    with pytest.raises(DataError, match="its values are not those that its program writes"):
        import_rows(_written(tmp_path, broken))


def test_a_report_of_optimum_benchmark(tmp_path: Path) -> None:
    row = _one(_written(tmp_path, OPTIMUM))
    latency = row.latency_ms
    assert latency is not None and row.memory is not None
    assert latency.raw_ns == (1504690, 661500, 652276)
    assert latency.p50 == pytest.approx(0.6615)
    assert latency.p99 is None and latency.ci95 is None
    assert (latency.load, latency.first) == pytest.approx((383.93, 197.94), rel=1e-3)
    assert row.memory.peak_rss_mb == 925.782016
    assert (row.model.id, row.model.format, row.model.precision) == (
        "tinybert-fp32",
        "checkpoint",
        "fp32",
    )
    assert (row.runtime.name, row.runtime.version, row.inputs.seq_len) == ("pytorch", "2.15.0", 16)
    assert (row.device.model, row.device.cores) == ("AMD EPYC", 2)


def test_a_report_finds_its_configuration_beside_it(tmp_path: Path) -> None:
    report = _written(tmp_path, OPTIMUM["report"], "benchmark_report.json")
    assert _one(report).runtime.name == "unknown"
    _written(tmp_path, OPTIMUM["config"], "benchmark_config.json")
    assert _one(report).runtime.name == "pytorch"


def test_generation_is_no_forward_pass(tmp_path: Path) -> None:
    part = OPTIMUM["report"]["forward"]
    row = _one(_written(tmp_path, {"prefill": part, "decode": part}))
    assert row.latency_ms is None
    assert "no forward passes" in row.validity.reasons[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"text",
        b"\x00\x01\x02",
        b"\x0a\x05ab",
        b"PK\x03\x04\x14\x00",
        b"\xff" * 40,
    ],
)
def test_other_files_are_nobody_s(tmp_path: Path, content: bytes) -> None:
    path = _written(tmp_path, content, "rows.txt")
    assert import_rows(path) is None
    with pytest.raises(DataError):
        read_any(path)


def test_a_report_of_imported_rows_alone(tmp_path: Path) -> None:
    files = [
        _written(tmp_path, LOG, "log.txt"),
        _written(tmp_path, SUMMARY, "summary.txt"),
        _written(tmp_path, MOBILE, "mobile.json"),
        _written(tmp_path, OPTIMUM, "optimum.json"),
        _written(tmp_path, LITERT_JSON, "litert.json"),
    ]
    texts = render(Report.merged(read_several(files)))
    assert "6 imported results; nothing was measured here." in texts["report.html"]
    assert "imported from optimum-benchmark" in texts["report.md"]
    assert "never count as valid" in texts["report.md"]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_brackets_within_brackets_are_no_result(tmp_path: Path, text: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(text)
    with pytest.raises(DataError, match="line 1, is not a row"):
        read_any(file)


def _litert_json(tmp_path: Path, latency: str, model: str = "model") -> Path:
    file = tmp_path / "result.json"
    file.write_text(f'{{"accelerators": ["CPU"], "model": "{model}", "latency": {latency}}}')
    return file


@pytest.mark.parametrize(
    ("latency", "words"),
    [
        ('{"median_ms": 2, "p95_ms": 1, "num_runs": 5}', "p50 is 2, above p95"),
        ('{"median_ms": 1, "median_ms": 2, "num_runs": 5}', "is not a row"),
        ('{"median_ms": -1, "num_runs": 5}', "its values are not those"),
        ('{"median_ms": NaN, "num_runs": 5}', "its values are not those"),
    ],
)
def test_an_imported_latency_that_cannot_be_is_refused(
    tmp_path: Path, latency: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_any(_litert_json(tmp_path, latency))


def test_a_median_below_what_the_tool_counts_is_unknown(tmp_path: Path) -> None:
    """And a name with half a character is written as an escape, into every file of a report."""
    (row,) = read_any(_litert_json(tmp_path, '{"median_ms": 0, "num_runs": 5}', r"\ud800x"))
    assert row.latency_ms is not None and row.latency_ms.p50 is None
    assert row.model.id == r"\ud800x"
