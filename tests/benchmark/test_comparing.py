"""Two runs against each other: which differences are real, and which are the machine's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import Row, compare_runs, statistics
from benchmark.report.compare import Pair
from benchmark.row_files import dump_rows
from edge.cli.compare import compare as command
from edge.errors import DataError, MeasurementError
from tests.benchmark.conftest import run_command
from tests.benchmark.row_factory import ROUNDS, made_row


def _run(
    ms: float, run: str, *, seed: int = 0, busy: float = 1.0, beside: bool = True
) -> list[Row]:
    """An artifact and a baseline of 50 ms beside it, on a machine that is `busy` times slower.

    Both see the same state of the machine in each round.
    """
    speed = busy * np.random.default_rng(seed + 1000).uniform(1, 1.5, ROUNDS)
    rows = [made_row(ms=ms, run=run, speed=speed, seed=seed)]
    if beside:
        rows.append(
            made_row(
                "bert-base",
                "checkpoint",
                ms=50.0,
                role="baseline",
                run=run,
                speed=speed,
                seed=-seed - 1 + 99,
            )
        )
    return rows


def _only(a: list[Row], b: list[Row], **values: Any) -> Pair:
    found = compare_runs(a, b, **values)
    assert (found.only_a, found.only_b) == ((), ())
    (pair,) = found.pairs
    return pair


def test_a_busier_machine_cancels_through_the_baseline() -> None:
    pair = _only(_run(10, "a", seed=1), _run(10, "b", seed=2, busy=1.4))
    assert pair.through == "BERT-base in PyTorch"
    assert pair.verdict == "indistinguishable"
    assert pair.ratio == pytest.approx(1, abs=0.03)
    assert pair.p50_ms.b is not None and pair.p50_ms.a is not None
    assert pair.p50_ms.b > 1.2 * pair.p50_ms.a


def test_without_a_baseline_the_machine_stays_in_the_ratio_and_it_is_said() -> None:
    a, b = _run(10, "a", seed=1, beside=False), _run(10, "b", seed=2, busy=1.4, beside=False)
    pair = _only(a, b)
    assert pair.through is None
    assert pair.verdict == "slower"


def test_a_true_difference_is_found() -> None:
    slower = _only(_run(10, "a", seed=1), _run(10.8, "b", seed=2))
    assert slower.verdict == "slower"
    assert slower.ratio == pytest.approx(1 / 1.08, rel=0.02)
    faster = _only(_run(10.8, "a", seed=1), _run(10, "b", seed=2, busy=1.4))
    assert faster.verdict == "faster"
    assert faster.ci95 is not None and faster.ci95[0] > 1


def test_a_difference_within_the_margin_is_none() -> None:
    a, b = [made_row(rounds=128, seed=1)], [made_row(ms=10.15, rounds=128, run="b", seed=2)]
    assert _only(a, b).verdict == "indistinguishable"
    assert _only(a, b, margin=0.0).verdict == "slower"
    assert _only(a, b, margin=0.0).ratio == _only(a, b).ratio


def test_equal_runs_are_seldom_called_different() -> None:
    verdicts = [
        _only(_run(10, "a", seed=2 * s), _run(10, "b", seed=2 * s + 1), margin=0.0).verdict
        for s in range(20)
    ]
    assert verdicts.count("indistinguishable") >= 18


def test_many_comparisons_ask_for_more() -> None:
    """One pair whose interval just excludes 1, alone and among many that are alike."""
    a, b = _run(10, "a", seed=1), _run(10.4, "b", seed=2)
    alone = _only(a, b)
    assert alone.chance is not None
    more = [
        made_row("student", precision=f"int{n}", run=run, seed=n) for n in range(12) for run in "ab"
    ]
    found = compare_runs(
        [*a, *(row for row in more if row.run_id == "a")],
        [*b, *(row for row in more if row.run_id == "b")],
    )
    among = found.pairs[0]
    assert among.ratio == alone.ratio
    assert among.chance is not None and among.chance > alone.chance


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_chance_by_hand() -> None:
    # An interval from -1.96 to 1.96 errors around log(value) = 2 errors; many rounds: 4.55 %.
    error = 0.01
    value = math.exp(2 * error)
    interval = (value * math.exp(-1.959964 * error), value * math.exp(1.959964 * error))
    assert statistics.chance(value, interval, 10**6) == pytest.approx(0.0455, abs=1e-4)
    assert statistics.chance(value, interval, 5) == pytest.approx(0.1161, abs=1e-4)
    assert statistics.chance(1.0, (1.0, 1.0), 9) == 1.0
    assert statistics.chance(1.1, (1.1, 1.1), 9) == 0.0
    # With a margin only what lies beyond it counts.
    assert statistics.chance(value, interval, 9, margin=0.03) == 1.0
    wider = statistics.chance(value, interval, 10**6, margin=math.expm1(error))
    assert wider == pytest.approx(0.3173, abs=1e-4)


def test_a_ratio_of_ratios_by_hand() -> None:
    before = ({n: np.array([100]) for n in range(6)}, {n: np.array([10]) for n in range(6)})
    after = ({n: np.array([300]) for n in range(6)}, {n: np.array([15]) for n in range(6)})
    # Ten times faster than the reference before, twenty times after.
    assert statistics.ratio_of_ratios(before, after, seed=0) == (2.0, (2.0, 2.0))
    few = ({0: np.array([300])}, {0: np.array([15])})
    assert statistics.ratio_of_ratios(before, few, seed=0) == (2.0, None)
    apart = ({0: np.array([300])}, {1: np.array([15])})
    assert statistics.ratio_of_ratios(before, apart, seed=0) is None


def test_another_baseline_is_no_common_one() -> None:
    a, b = _run(10, "a"), _run(10, "b", seed=2)
    model = b[1].model.model_copy(update={"sha256": "other"})
    b[1] = b[1].model_copy(update={"model": model})
    assert _only(a, b).through is None


def test_settings_are_matched_and_what_is_alone_is_listed() -> None:
    a = [made_row(length=length, run="a", seed=length) for length in (32, 128)]
    b = [made_row(length=length, threads=t, run="b", seed=9) for length, t in ((128, 1), (128, 2))]
    b.append(made_row(form="tflite", run="b"))
    found = compare_runs(a, b)
    assert [pair.name for pair in found.pairs] == [
        "ONNX fp32 in ONNX Runtime, 128 tokens, 1 thread"
    ]
    assert found.only_a == ("ONNX fp32 in ONNX Runtime, 32 tokens, 1 thread",)
    assert found.only_b == (
        "ONNX fp32 in ONNX Runtime, 128 tokens, 2 threads",
        "TFLite fp32 in LiteRT, 128 tokens, 1 thread",
    )


def test_another_device_is_no_pair() -> None:
    found = compare_runs([made_row(device="One")], [made_row(device="Two")])
    assert found.pairs == ()
    assert (len(found.only_a), len(found.only_b)) == (1, 1)


def test_another_name_is_a_pair_unless_there_are_several() -> None:
    (pair,) = compare_runs([made_row("old")], [made_row("new")]).pairs
    assert pair.name.endswith("(was old/onnx-fp32)")
    found = compare_runs([made_row("old"), made_row("kept")], [made_row("new"), made_row("kept")])
    assert [pair.name for pair in found.pairs] == ["kept ONNX fp32 in ONNX Runtime"]
    assert found.only_a == ("old ONNX fp32 in ONNX Runtime",)


def test_the_later_of_two_equal_rows_counts() -> None:
    old = made_row(ms=99, started_utc="2024-01-01T00:00:00Z")
    pair = _only([made_row(), old], [made_row(run="b", seed=3)])
    assert pair.p50_ms.a == pytest.approx(10, abs=0.2)


def test_what_cannot_be_judged_says_why() -> None:
    def why(**values: Any) -> str | None:
        pair = _only([made_row(**values)], [made_row(run="b", **values)])
        assert pair.verdict == "unknown"
        return pair.why

    row = made_row()
    assert row.latency_ms is not None
    alone = row.latency_ms.model_copy(update={"raw_ns": (), "blocks": (), "recorded": "nothing"})
    assert why(latency_ms=alone) == "the runs were not recorded one by one"
    assert why(latency_ms=None) == "not timed in both runs"
    assert why(kind="emulated", instructions=5) == "the processor is emulated"
    assert why(rounds=3) == "too few rounds for an interval"
    wrong = row.validity.model_copy(update={"status": "invalid", "reasons": ("wrong answers",)})
    assert why(validity=wrong) == "its latency is invalid: wrong answers"


def test_devices_of_one_model_are_told_apart_by_their_address() -> None:
    def at(address: str, ms: float, run: str) -> Any:
        device = made_row().device.model_copy(update={"address": address})
        return made_row(ms=ms, run=run, device="Board").model_copy(update={"device": device})

    a = [at("one", 10.0, "a"), at("two", 20.0, "a")]
    b = [at("two", 20.0, "b"), at("one", 10.0, "b")]
    pairs = compare_runs(a, b).pairs
    assert len(pairs) == 2 and all(abs((pair.ratio or 0) - 1) < 0.05 for pair in pairs)
    # The only one of its name on either side is the same device at another address.
    (pair,) = compare_runs([at("one", 10.0, "a")], [at("new", 10.0, "b")]).pairs
    assert pair.ratio is not None


def test_instructions_size_and_memory_are_told() -> None:
    a = made_row(kind="emulated", instructions=100, size=5)
    b = made_row(kind="emulated", instructions=90, size=4, memory=None, run="b")
    pair = _only([a], [b])
    assert (pair.instructions.a, pair.instructions.b) == (100, 90)
    assert (pair.size_bytes.a, pair.size_bytes.b) == (5, 4)
    assert (pair.memory_mb.a, pair.memory_mb.b) == (20.0, None)
    assert pair.p50_ms.a is None


def test_a_metric_within_chance() -> None:
    def metric(one: float, other: float, samples: int | None = 872) -> Any:
        a = made_row(accuracy=one, samples=samples)
        return _only([a], [made_row(accuracy=other, samples=samples, run="b")]).metric

    close = metric(0.8624, 0.8658)
    assert close.error == pytest.approx(math.sqrt((0.8624 * 0.1376 + 0.8658 * 0.1342) / 872))
    assert close.within_chance
    assert not metric(0.80, 0.90).within_chance
    assert metric(0.80, 0.90, samples=None).within_chance is None


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text(dump_rows([*_run(10, "a", seed=1), made_row(form="tflite", run="a")]))
    b.write_text(dump_rows(_run(11.5, "b", seed=2, busy=1.2)))
    return a, b


def test_the_command_says_all(files: tuple[Path, Path]) -> None:
    found = run_command(command, *files)
    header, line = (text.split("\t") for text in found.stdout.splitlines())
    cells = dict(zip(header, line, strict=True))
    assert cells["model"] == "ONNX fp32 in ONNX Runtime"
    assert cells["verdict"] == "slower"
    assert cells["times faster (95%)"].startswith("0.8")
    assert cells["by"] == "p50 over that of BERT-base in PyTorch"
    assert "only in" in found.stderr and "TFLite fp32 in LiteRT" in found.stderr
    assert "relative to BERT-base in PyTorch, timed in both runs" in found.stderr


def test_slower_fails_only_when_asked_to(files: tuple[Path, Path]) -> None:
    assert run_command(command, *files).exit_code == 0
    with pytest.raises(
        MeasurementError, match="slower than before: ONNX fp32 in ONNX Runtime: 0.8"
    ):
        run_command(command, *files, "--fail-slower")
    assert run_command(command, *reversed(files), "--fail-slower").exit_code == 0


def test_json_for_machines(files: tuple[Path, Path]) -> None:
    found = json.loads(run_command(command, *files, "--json").stdout)
    assert found["pairs"][0]["verdict"] == "slower"
    assert len(found["only_a"]) == 1
    assert found["baselines"][0]["p50_ms"]["b"] > found["baselines"][0]["p50_ms"]["a"]


def test_files_that_hold_no_rows_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    empty, old, odd = (tmp_path / name for name in ("empty.jsonl", "old.jsonl", "odd.txt"))
    empty.write_text("\n")
    old.write_text('{"schema_version": "1"}\n')
    odd.write_text("not json")
    for path, message in (
        (empty, "holds no rows"),
        (old, "line 1, has rows of schema 1, this program reads 2: measure again"),
        (odd, "line 1, is not a row of a benchmark"),
        (tmp_path / "none", "cannot be read: name a report folder"),
    ):
        with pytest.raises(DataError, match=message):
            run_command(command, files[0], path)
