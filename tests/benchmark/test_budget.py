"""Limits: which are kept, which are broken, and that what was not measured keeps none."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import Budget, Row, read_budget
from benchmark.ratios import ratio_of
from benchmark.schema import Validity
from edge.errors import ConfigError
from tests.benchmark.row_factory import made_latency, made_row


def _row(**values: object) -> Row:
    """10 ms, 20 MB of memory, 1 MB of file, accuracy 0.9, between 2.9 and 3.1 times faster."""
    ratio = ratio_of((3.0, (2.9, 3.1)), baseline="bert-base", engine="pytorch")
    given = {"ms": 10.0, "accuracy": 0.9, "ratio_to_baseline": ratio, **values}
    return made_row(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "phrase"),
    [
        ({"p50_ms": 9}, "p50 10.0 ms, allowed 9.00 ms"),
        ({"p90_ms": 10}, "p90 10.3 ms, allowed 10.0 ms"),
        ({"size_bytes": "900 kB"}, "size 1.00 MB, allowed 900 kB"),
        ({"memory_mb": 19.5}, "memory 20.0 MB, allowed 19.5 MB"),
        ({"metric": 0.91}, "metric 0.9, at least 0.91 asked for"),
        ({"ratio": 2.95}, "ratio to the baseline 2.9, at least 2.95 asked for"),
        ({"instructions": 10}, "instructions was not measured, allowed 10"),
    ],
)
def test_each_limit_can_be_broken(limit: dict[str, object], phrase: str) -> None:
    assert Budget.build(limit).violations([_row()]) == [
        f"student/onnx-fp32 at 128 tokens: {phrase}"
    ]


def test_limits_that_are_kept_say_nothing() -> None:
    limits = {
        "p50_ms": 11,
        "p90_ms": 12,
        "size_bytes": "1 MB",
        "memory_mb": 20,
        "metric": 0.9,
        "ratio": 2.9,
        "valid": True,
    }
    assert Budget.build(limits).violations([_row()]) == []


def test_sizes_are_bytes_in_any_unit() -> None:
    sizes = [
        Budget.build({"size_bytes": size}).size_bytes for size in (30_000_000, "30 MB", "1MiB")
    ]
    assert sizes == [30_000_000, 30_000_000, 1 << 20]


def test_what_was_not_measured_breaks_its_limit() -> None:
    model = _row().model.model_copy(update={"bytes": None})
    bare = _row(latency_ms=None, memory=None, accuracy=None, ratio_to_baseline=None, model=model)
    limits = {"p50_ms": 1, "memory_mb": 1, "metric": 0.5, "ratio": 1, "size_bytes": 1}
    violations = Budget.build(limits).violations([bare])
    assert len(violations) == 5
    assert all("was not measured" in line for line in violations)


def test_turns_without_single_runs_have_no_p90() -> None:
    row = _row(latency_ms=made_latency(10, p90=None, recorded="turns"))
    assert Budget.build({"p90_ms": 99}).violations([row]) == [
        "student/onnx-fp32 at 128 tokens: p90 was not measured, allowed 99.0 ms"
    ]


def test_an_emulator_has_instructions_and_no_latency() -> None:
    row = _row(kind="emulated", instructions=1_000)
    found = Budget.build({"p50_ms": 99, "instructions": 999}).violations([row])
    assert [line.partition(": ")[2] for line in found] == [
        "p50 was not measured, allowed 99.0 ms",
        "instructions 1,000, allowed 999",
    ]


def test_every_setting_has_to_keep_the_limit_and_is_named() -> None:
    rows = [_row(ms=ms, length=length) for ms, length in ((5.0, 32), (10.0, 128))]
    rows.append(_row(ms=6.0, length=128, threads=2))
    assert Budget.build({"p50_ms": 7}).violations(rows) == [
        "student/onnx-fp32 at 128 tokens, 1 thread: p50 10.0 ms, allowed 7.00 ms"
    ]


def test_baselines_have_no_limits() -> None:
    assert Budget.build({"p50_ms": 7}).violations([_row(ms=5), _row(ms=99, role="baseline")]) == []


def test_further_limits_by_name() -> None:
    rows = [_row(), _row(form="tflite", precision="int8")]
    budget = Budget.build({"p50_ms": 11, "artifacts": {"*/tflite-*": {"p50_ms": 8}}})
    assert budget.violations(rows) == [
        "student/tflite-int8 at 128 tokens: p50 10.0 ms, allowed 8.00 ms"
    ]
    missing = Budget.build({"artifacts": {"*/coreml-*": {"p50_ms": 8}}})
    assert missing.violations(rows) == ["no artifact is called '*/coreml-*'"]


def test_a_reservation_breaks_only_the_demand_for_validity() -> None:
    row = _row(validity=Validity(status="limited", reasons=("hot", "drift")))
    assert Budget.build({"p50_ms": 11}).violations([row]) == []
    assert Budget.build({"valid": True}).violations([row]) == [
        "student/onnx-fp32 at 128 tokens: limited (hot; drift)"
    ]


def test_nothing_measured_is_no_success() -> None:
    assert Budget.build({"p50_ms": 11}).violations([]) == ["no artifact was measured"]
    baseline = _row(role="baseline")
    assert Budget.build({"p50_ms": 11}).violations([baseline]) == ["no artifact was measured"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "it sets no limit: name at least one of p50_ms, p90_ms"),
        ("valid: false", "it sets no limit"),
        ("artifacts: {}", "it sets no limit"),
        ("artifacts: {'*/onnx-*': {}}", r"artifacts.\*/onnx-\* sets no limit"),
        ("p99_ms: 3", "unknown key 'p99_ms', did you mean 'p"),
        ("size_bytes: thirty", "size_bytes: could not parse"),
        ("p50_ms: -1", "p50_ms: Input should be greater than 0"),
        ("- p50_ms", "must hold key: value pairs"),
        ("p50_ms: [", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_budget_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "budget.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_budget(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_budget(tmp_path / "none.yaml")


def test_the_example_of_the_docs_is_a_budget(tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs" / "benchmark.md"
    example = docs.read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "budget.yaml").write_text(example)
    budget = read_budget(tmp_path / "budget.yaml")
    assert budget.size_bytes == 30_000_000
    assert set(budget.artifacts) == {"*/onnx-int8"}
