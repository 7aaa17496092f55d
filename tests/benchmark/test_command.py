"""`edge benchmark` as a user calls it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import Baseline, Protocol
from edge.cli.benchmark import benchmark as command
from edge.errors import (
    BundleError,
    ConfigError,
    DataError,
    MeasurementError,
    StorageError,
    UserError,
)
from tests.benchmark.conftest import run_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asked(
    monkeypatch: pytest.MonkeyPatch, baseline_bundle: Path, protocol: Protocol
) -> dict[str, Any]:
    """What the command asked its baseline for; `quick` is made quicker, and PyTorch left out."""
    import edge.pipeline.baseline

    baseline = Baseline(name="bert-base", bundle=baseline_bundle, random_weights=True)

    seen: dict[str, Any] = {}

    def prepare(name: str, **values: Any) -> Baseline:
        seen.update(values, name=name)
        return baseline

    monkeypatch.setattr(edge.pipeline.baseline, "prepare_baseline", prepare)
    monkeypatch.setitem(benchmark.PRESETS, "quick", protocol)
    return seen


def test_json_has_rows_and_what_was_not_measured(bundle: Path, asked: dict[str, Any]) -> None:
    found = run_command(
        command, bundle, "--json", "--format", "onnx", "--precision", "int8,fp32", "--seed", "3"
    )
    value = json.loads(found.stdout)
    assert sorted(value) == ["broken", "not_measured", "rows"]
    assert value["broken"] == []
    assert [row["role"] for row in value["rows"]] == ["artifact"] * 2 + ["baseline"]
    for row in value["rows"]:
        assert row["ratio_to_baseline"] is None
        assert row["ratio_same_engine"]["value"] > 0
        assert len(row["ratio_same_engine"]["ci95"]) == 2
        assert row["protocol"]["seed"] == 3
        assert row["latency_ms"]["raw_ns"]
    assert asked == {
        "name": "bert-base",
        "formats": ("onnx",),
        "seq_length": (32,),
        "allow_pickle": False,
    }


def test_a_table_and_a_report(bundle: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "report"
    found = run_command(
        command, bundle, "--format", "onnx", "--precision", "int8", "--output", output
    )
    lines = found.stdout.splitlines()
    # Not a terminal: tab-separated, a header and two rows.
    header = lines[0].split("\t")
    assert header[:3] == ["model", "engine", "tokens"]
    assert len(lines) == 3
    cells = lines[1].split("\t")
    assert cells[:2] == ["student/onnx-int8", "ONNX Runtime"]
    assert re.fullmatch(r"[\d.,]+ \([\d.,]+-[\d.,]+\)", cells[header.index("x same engine")])
    assert "timing: round 8 of 8" in found.stderr
    files = {path.name for path in output.iterdir()}
    assert {"report.html", "report.md", "rows.jsonl"} <= files
    # What an interrupted run goes on from is gone when it has finished.
    assert list(output.parent.glob("*.measuring.jsonl")) == []
    assert "Benchmark of student" in (output / "report.html").read_text()


def test_what_was_measured_outlives_a_report_that_cannot_be_written(
    bundle: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "report"
    words = ("--format", "onnx", "--precision", "int8", "--baseline", "none", "--output", output)
    (output / "rows.csv").mkdir(parents=True)
    (output / "rows.jsonl").touch()
    with pytest.raises(StorageError, match=r"rows\.csv is a folder"):
        run_command(command, bundle, *words)
    assert (tmp_path / "report.measuring.jsonl").is_file()
    (output / "rows.csv").rmdir()
    found = run_command(command, bundle, *words)
    assert "going on with report.measuring.jsonl" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert len(list(output.iterdir())) == 4


def test_a_sweep_and_what_devices_are_told_reach_the_run(
    bundle: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("text\tlabel\nok\tno\ndull\tyes\n")
    values = ("--threads", "1,2", "--seq-length", "8,16", "--batch", "1", "--eval", labels)
    found = run_command(
        command, bundle, *values, "--precision", "fp32", "--format", "onnx", "--json"
    )
    rows = json.loads(found.stdout)["rows"]
    points = [(row["runtime"]["threads"], row["inputs"]["seq_len"]) for row in rows[::2]]
    assert points == [(1, 8), (1, 16), (2, 8), (2, 16)]
    assert {row["accuracy"]["samples"] for row in rows[::2]} == {2}
    assert asked["seq_length"] == (8, 16)


@pytest.mark.parametrize("option", ["--eval", "--data"])
def test_a_file_that_cannot_be_read_costs_no_baseline(
    bundle: Path, asked: dict[str, Any], tmp_path: Path, option: str
) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("words\tmeaning\nok\tno\n")
    with pytest.raises(DataError, match=r"labels\.tsv"):
        run_command(command, bundle, "--format", "onnx", option, labels)
    assert not asked


def test_a_checkpoint_is_timed_beside_a_bundle(
    bundle: Path, baseline_checkpoint: Path, asked: dict[str, Any]
) -> None:
    found = run_command(
        command, bundle, baseline_checkpoint, "--precision", "fp32", "--format", "onnx", "--json"
    )
    _, row, _ = json.loads(found.stdout)["rows"]
    assert (row["model"]["id"], row["role"]) == ("bert/checkpoint-fp32", "artifact")
    assert row["runtime"]["name"] == "pytorch" and row["latency_ms"]["p50"] > 0
    # It is what artifacts are compared with, so nothing is missing.
    assert row["check"] is None
    assert not any("verified" in reason for reason in row["validity"]["reasons"])
    with pytest.raises(ConfigError, match="name a bundle beside the checkpoints"):
        run_command(command, baseline_checkpoint)


def test_a_broken_budget_is_a_failure_and_the_report_is_there(
    bundle: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    budget, output = tmp_path / "budget.yaml", tmp_path / "report"
    budget.write_text("p90_ms: 0.000001\nsize_bytes: 30 MB\n")
    arguments = (bundle, "--format", "onnx", "--precision", "fp32", "--budget", budget)
    with pytest.raises(MeasurementError, match=r"over budget: student/onnx-fp32 at 32 .* p90 "):
        run_command(command, *arguments, "--output", output)
    assert (output / "rows.jsonl").is_file()
    budget.write_text("p90_ms: 60000\n")
    assert run_command(command, *arguments).exit_code == 0
    budget.write_text("p90: 60000\n")
    with pytest.raises(ConfigError, match=r"unknown key 'p90', did you mean 'p90_ms'"):
        run_command(command, *arguments)


def test_a_saved_report_is_a_baseline(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "before"
    arguments = (bundle, "--format", "onnx", "--precision", "fp32")
    run_command(command, *arguments, "--baseline", "none", "--output", output)
    found = json.loads(run_command(command, *arguments, "--baseline", output, "--json").stdout)
    (row,) = found["rows"]
    ratio = row["ratio_same_engine"]
    assert ratio["paired"] is False and ratio["baseline"] == "student/onnx-fp32"
    assert any("its times are of another run" in line for line in found["not_measured"])
    assert any("student/onnx-fp32 in ONNX Runtime took" in line for line in found["not_measured"])
    more = ("--threads", "2", "--baseline", output, "--json")
    found = json.loads(run_command(command, *arguments, *more).stdout)
    assert found["rows"][0]["ratio_same_engine"] is None
    assert any("no row in these engines at this setting" in line for line in found["not_measured"])


def test_none_means_no_baseline(make_bundle: Callable[..., Path], asked: dict[str, Any]) -> None:
    found = run_command(command, make_bundle(), "--baseline", "none", "--json")
    rows = json.loads(found.stdout)["rows"]
    assert [row["ratio_to_baseline"] for row in rows] == [None]
    assert asked == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onx"], "unknown format 'onx': did you mean 'onnx'"),
        (["--precision", "int9"], "unknown precision 'int9': did you mean 'int8'"),
        (["--preset", "quck"], "unknown preset 'quck': did you mean 'quick'"),
        (["--seq-length", "999"], "onnx-fp32 does not accept 999 tokens, it accepts up to 32"),
    ],
)
def test_a_wrong_flag_is_refused_before_a_baseline_is_made(
    bundle: Path, asked: dict[str, Any], arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command(command, bundle, *arguments)
    assert asked == {}


def test_wrong_folders_are_refused(bundle: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist: check the path"):
        run_command(command, tmp_path / "nowhere")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("text")
    with pytest.raises(UserError, match="exists and was not written by this command"):
        run_command(command, bundle, "--output", tmp_path / "letters")
    assert asked == {}


def test_the_command_is_described_without_loading_anything() -> None:
    script = (
        "import sys; import edge.cli.benchmark; "
        "heavy = {'torch', 'numpy', 'benchmark', 'pydantic', 'transformers'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
