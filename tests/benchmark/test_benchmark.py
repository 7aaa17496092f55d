"""`benchmark()` on real engines and tiny models: rows, ratios, and what is said about the rest."""

from __future__ import annotations

import json
import platform
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import psutil
import pytest

import benchmark
from benchmark import Baseline, BenchmarkConfig, BenchmarkResult, Protocol, Row
from benchmark.devices import Loaded, Turn, Warmed, get_device
from benchmark.measure.plan import Planner
from benchmark.measure.rows import _shortfalls, deflated_bytes, latency_of
from benchmark.measure.sampler import Samples
from benchmark.schema import json_schema
from edge.bundle import Bundle, GoldenCase, Manifest, write_manifest
from edge.engines.runner import bundle_task
from edge.errors import BundleError, ConfigError, MeasurementError
from edge.evaluate import evaluate

SCHEMA = Path(benchmark.__file__).parent / "row.schema.json"
ON_LINUX = pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML runs here")


def _named(result: BenchmarkResult) -> dict[tuple[str, str], Row]:
    return {(row.model.id, row.runtime.name): row for row in result.rows}


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@ON_LINUX
def test_every_artifact_and_the_baseline_in_every_engine_has_a_row(
    measured: BenchmarkResult,
) -> None:
    assert list(_named(measured)) == [
        ("student/onnx-fp32", "onnxruntime"),
        ("student/onnx-int8", "onnxruntime"),
        ("student/coreml-fp16", "coreml"),
        ("bert-base", "pytorch"),
        ("bert-base", "onnxruntime"),
    ]
    assert [row.role for row in measured.rows] == ["artifact"] * 3 + ["baseline"] * 2
    assert (measured.baseline, measured.random_weights) == ("bert-base", True)


def test_rows_validate_against_the_shipped_schema(measured: BenchmarkResult) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for row in measured.rows:
        value = json.loads(row.model_dump_json())
        validator.validate(value)
        assert Row.model_validate_json(row.model_dump_json()) == row
        value["latency"] = 1
        with pytest.raises(jsonschema.ValidationError, match="latency"):
            validator.validate(value)


def test_the_shipped_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(json_schema()))


def test_figures_of_a_row_agree_with_its_raw_samples(
    measured: BenchmarkResult, protocol: Protocol
) -> None:
    for row in measured.rows:
        if row.latency_ms is None:
            continue
        latency = row.latency_ms
        assert latency.p50 == pytest.approx(np.median(latency.raw_ns) / 1e6)
        assert latency.n == len(latency.raw_ns) >= protocol.min_runs
        assert sum(runs for _, runs in latency.blocks) == latency.n
        assert latency.ci95 is not None and latency.ci95[0] <= latency.p50 <= latency.ci95[1]
        assert row.memory is not None and row.memory.peak_rss_mb > row.memory.delta_mb


def test_ratios_are_against_pytorch_and_against_the_same_engine(measured: BenchmarkResult) -> None:
    rows = _named(measured)
    artifact = rows["student/onnx-int8", "onnxruntime"]
    for ratio, engine in (
        (artifact.ratio_to_baseline, "pytorch"),
        (artifact.ratio_same_engine, "onnxruntime"),
    ):
        reference = rows["bert-base", engine].latency_ms
        assert ratio is not None and reference is not None and artifact.latency_ms is not None
        assert (ratio.baseline, ratio.engine) == ("bert-base", engine)
        # All cells were timed in all rounds, so the ratio is that of the rows' own medians.
        assert ratio.value == pytest.approx(reference.p50 / artifact.latency_ms.p50)
        assert ratio.ci95 is not None and ratio.ci95[0] <= ratio.value <= ratio.ci95[1]
        assert ratio.indistinguishable is (ratio.ci95[0] <= 1 <= ratio.ci95[1])
    own = rows["bert-base", "pytorch"].ratio_to_baseline
    assert own is not None and (own.value, own.ci95, own.indistinguishable) == (1, (1, 1), True)


@ON_LINUX
def test_what_cannot_be_timed_has_a_row_with_its_size_and_a_sentence(
    measured: BenchmarkResult,
) -> None:
    row = _named(measured)["student/coreml-fp16", "coreml"]
    assert (row.latency_ms, row.memory, row.ratio_to_baseline) == (None, None, None)
    assert row.model.bytes == 200 and row.model.bytes_zip is not None
    assert row.validity.status == "not_measured"
    assert row.validity.reasons == ("Core ML runs on Apple systems only (use a Mac)",)
    expected = "Core ML (fp16) was not timed: Core ML runs on Apple systems only (use a Mac)."
    assert expected in measured.not_measured


def test_all_rows_state_inputs_of_the_same_length(measured: BenchmarkResult) -> None:
    assert {row.inputs.seq_len for row in measured.rows} == {32}
    assert {row.inputs.real_len_p50 for row in measured.rows} == {12.0}
    assert {row.inputs.samples for row in measured.rows} == {5}
    # The baselines have smaller vocabularies: the same texts, other ids.
    assert len({row.inputs.sha256 for row in measured.rows}) == 3


def test_no_process_is_left(measured: BenchmarkResult) -> None:
    assert [p for p in _children() if "benchmark.worker.worker" in " ".join(p.cmdline())] == []


def test_the_result_survives_json(measured: BenchmarkResult) -> None:
    assert BenchmarkResult.model_validate_json(measured.model_dump_json()) == measured


def test_sizes_after_deflate(tmp_path: Path) -> None:
    data = b"edge" * 500_000
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(b"")
    # zlib's own frame is 6 bytes around the raw stream.
    assert deflated_bytes(tmp_path / "a") == len(zlib.compress(data, 6)) - 6
    assert deflated_bytes(tmp_path) == deflated_bytes(tmp_path / "a") + 2


@ON_LINUX
def test_only_core_ml_is_no_failure(bundle: Path, baseline: Baseline, protocol: Protocol) -> None:
    found = benchmark.benchmark(
        BenchmarkConfig(bundles=(bundle,), format=("coreml",), baseline=baseline, protocol=protocol)
    )
    assert [row.validity.status for row in found.rows] == ["not_measured"]
    assert found.not_measured == (
        "Core ML (fp16) was not timed: Core ML runs on Apple systems only (use a Mac).",
    )


def test_without_a_baseline_there_is_no_ratio(
    make_bundle: Callable[..., Path], protocol: Protocol
) -> None:
    first, second = make_bundle("first"), make_bundle("second", ("int8",))
    config = BenchmarkConfig(bundles=(first, second), protocol=protocol)
    found = benchmark.benchmark(config)
    assert [row.model.id for row in found.rows] == ["first/onnx-fp32", "second/onnx-int8"]
    assert all(row.ratio_to_baseline is None for row in found.rows)
    assert "No baseline was timed, so there is no ratio." in found.not_measured


def test_too_little_time_is_said_in_the_row(
    make_bundle: Callable[..., Path], protocol: Protocol
) -> None:
    hurried = protocol.model_copy(update={"min_runs": 10**6, "max_s": 0.08})
    found = benchmark.benchmark(BenchmarkConfig(bundles=(make_bundle(),), protocol=hurried))
    validity = found.rows[0].validity
    assert validity.status == "limited"
    pattern = r"\d+ runs in 0\.\d s within the limit of 0.08 s, where the preset asks for 1000000"
    assert re.match(pattern, validity.reasons[0])


@pytest.mark.parametrize(("run_ms", "short"), [(2.95, False), (2.5, True)])
def test_pauses_between_runs_are_no_shortfall(
    bundle: Path, protocol: Protocol, run_ms: float, short: bool
) -> None:
    wanted = protocol.model_copy(update={"min_runs": 10, "min_s": 6.0, "rounds": 10})
    planner = Planner(BenchmarkConfig(bundles=(bundle,)), get_device("local"))
    cell = planner.plan(planner.settings[0], None).timed[0]
    samples = Samples(Loaded(1.0, 1.0), Warmed(1, 0.1))
    for number in range(10):
        samples.add(number, Turn([int(run_ms * 1e6)] * 200, duration_s=0.6))
    found = _shortfalls(latency_of(samples, seed=0), samples, cell, wanted)
    assert bool(found) is short


def test_an_artifact_that_failed_verification_is_invalid(
    make_bundle: Callable[..., Path], protocol: Protocol
) -> None:
    path = make_bundle()
    values = json.loads((path / "edge.json").read_text().replace('"passed"', '"failed"'))
    write_manifest(path, Manifest.build(values))
    found = benchmark.benchmark(BenchmarkConfig(bundles=(path,), protocol=protocol))
    assert found.rows[0].validity.status == "invalid"
    assert "the artifact failed verification" in found.rows[0].validity.reasons[0]


def test_a_model_that_does_not_load_ends_the_comparison_in_one_line(
    make_bundle: Callable[..., Path], protocol: Protocol, tmp_path: Path
) -> None:
    broken = make_bundle("broken")
    _replace_model(broken, b"no model")
    config = BenchmarkConfig(bundles=(make_bundle("whole"), broken), protocol=protocol)
    with pytest.raises(MeasurementError, match=r"^broken/onnx-fp32: ONNX Runtime cannot load"):
        benchmark.benchmark(config)
    assert _children() == []


def test_ctrl_c_in_the_middle_leaves_no_process(
    make_bundle: Callable[..., Path], protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.measure import sampler

    seen: list[int] = []

    def interrupted(*args: Any) -> None:
        seen.append(len(_children()))
        raise KeyboardInterrupt

    monkeypatch.setattr(sampler.Rounds, "take", interrupted)
    config = BenchmarkConfig(bundles=(make_bundle("a"), make_bundle("b")), protocol=protocol)
    with pytest.raises(KeyboardInterrupt):
        benchmark.benchmark(config)
    assert seen == [2]
    assert _children() == []


def test_answers_on_the_device_are_compared_and_scored(
    bundle: Path, protocol: Protocol, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.tsv"
    words = ("ok", "dull", "a fine day", "good and bad", "z", "q")
    labels.write_text("text\tlabel\n" + "".join(f"{word}\tyes\n" for word in words))
    config = BenchmarkConfig(
        bundles=(bundle,), format=("onnx",), protocol=protocol, eval=labels, profile=True
    )
    opened = Bundle.open(bundle)
    table = bundle_task(opened).read(labels)
    local = evaluate(opened, table, formats=("onnx",))
    for row in benchmark.benchmark(config).rows:
        assert row.check is not None and row.check.status == "passed"
        assert row.check.samples == 6
        assert row.accuracy is not None and row.accuracy.on_device
        assert (row.accuracy.value, row.accuracy.samples) == (local[0].value, 6)
        assert row.stages is not None and row.stages.e2e.p50 >= row.stages.infer.p50
        assert {one.type for one in row.operators} >= {"Gather", "MatMul"}


def test_wrong_answers_on_the_device_are_invalid(
    make_bundle: Callable[..., Path], protocol: Protocol
) -> None:
    wrong = [GoldenCase("ok", None, [2, 18, 40, 3], [0] * 4, {"logits": np.ones(3)})]
    config = BenchmarkConfig(bundles=(make_bundle(cases=wrong),), protocol=protocol)
    (row,) = benchmark.benchmark(config).rows
    assert row.check is not None and row.check.status == "failed"
    assert row.validity.status == "invalid"
    assert "its answers on this device are wrong: relative error" in row.validity.reasons[0]


def test_several_texts_at_a_time(make_bundle: Callable[..., Path], protocol: Protocol) -> None:
    config = BenchmarkConfig(bundles=(make_bundle(),), protocol=protocol, batch=(1, 4))
    rows = benchmark.benchmark(config).rows
    assert [row.inputs.batch for row in rows] == [1, 4]
    assert all(row.latency_ms is not None for row in rows)
    # Outputs are compared one text at a time, whatever was timed.
    assert {row.check.status for row in rows if row.check} == {"passed"}


def test_a_full_pass_is_summed_up(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "texts.tsv"
    file.write_text("text\n" + "".join(f"{letter} day\n" for letter in "abcdefghijklmnopqrst"))
    config = BenchmarkConfig(bundles=(make_bundle(),), preset="full-pass", data=file)
    (row,) = benchmark.benchmark(config).rows
    assert row.latency_ms is not None and row.latency_ms.total_s is not None
    assert (row.latency_ms.n, row.inputs.samples, row.protocol.passes) == (20, 20, 1)
    assert row.latency_ms.total_s == pytest.approx(sum(row.latency_ms.raw_ns) / 1e9)
    with pytest.raises(ConfigError, match="goes through a whole data file: name one"):
        BenchmarkConfig.build({"bundles": (Path("x"),), "preset": "full-pass"}, where="x")


def test_an_altered_bundle_is_refused(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle()
    (path / "model-fp32.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="was altered after the bundle was written"):
        benchmark.benchmark(BenchmarkConfig(bundles=(path,)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": ("onx",)}, r"formats?: unknown format 'onx': did you mean 'onnx'\?|unknown"),
        ({"precision": ("fp23",)}, r"unknown precision 'fp23': did you mean 'fp32'\?"),
        ({"preset": "quik"}, r"preset: unknown preset 'quik': did you mean 'quick'\?"),
        ({"sequence": 3}, r"unknown key 'sequence', did you mean 'seq_length'\?"),
        ({"bundles": ()}, "bundles"),
        ({"threads": 0}, r"threads\.0: Input should be greater than 0"),
        ({"baseline": {"name": "x"}}, "baseline: a baseline needs a checkpoint, a bundle, or rows"),
    ],
)
def test_a_wrong_request_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BenchmarkConfig.build({"bundles": (Path("x"),)} | values, where="edge benchmark")


def _replace_model(bundle: Path, content: bytes) -> None:
    """Other content under a manifest that agrees with it."""
    from edge.storage import sha256

    file = bundle / "model-fp32.onnx"
    before = sha256(file)
    shutil.copy(file, bundle / "kept.onnx")
    file.write_bytes(content)
    values = json.loads((bundle / "edge.json").read_text().replace(before, sha256(file)))
    for artifact in values["artifacts"]:
        artifact["bytes"] = (bundle / artifact["file"]).stat().st_size
    write_manifest(bundle, Manifest.build(values))
