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
import typer
from typer.testing import CliRunner, Result

import benchmark
from benchmark import Baseline, Protocol
from edge.cli.benchmark import benchmark as command
from edge.errors import BundleError, ConfigError, UserError

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


def _run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_json_has_rows_and_what_was_not_measured(bundle: Path, asked: dict[str, Any]) -> None:
    found = _run(bundle, "--json", "--format", "onnx", "--precision", "int8,fp32", "--seed", "3")
    value = json.loads(found.stdout)
    assert sorted(value) == ["not_measured", "rows"]
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
        "seq_length": 32,
        "allow_pickle": False,
    }


def test_a_table_and_a_report(bundle: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "report"
    found = _run(bundle, "--format", "onnx", "--precision", "int8", "--output", output)
    lines = found.stdout.splitlines()
    # Not a terminal: tab-separated, a header and two rows.
    assert lines[0].split("\t")[:3] == ["model", "engine", "size"]
    assert len(lines) == 3
    cells = lines[1].split("\t")
    assert cells[:2] == ["student/onnx-int8", "ONNX Runtime"]
    assert re.fullmatch(r"[\d.,]+ \([\d.,]+-[\d.,]+\)", cells[6])
    assert "timing: round 8 of 8" in found.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        "report.html",
        "report.md",
        "rows.jsonl",
    ]
    assert "Benchmark of student" in (output / "report.html").read_text()


def test_none_means_no_baseline(make_bundle: Callable[..., Path], asked: dict[str, Any]) -> None:
    found = _run(make_bundle(), "--baseline", "none", "--json")
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
        _run(bundle, *arguments)
    assert asked == {}


def test_wrong_folders_are_refused(bundle: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist: check the path"):
        _run(tmp_path / "nowhere")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("text")
    with pytest.raises(UserError, match="exists and was not written by this command"):
        _run(bundle, "--output", tmp_path / "letters")
    assert asked == {}


def test_the_command_is_described_without_loading_anything() -> None:
    script = (
        "import sys; import edge.cli.benchmark; "
        "heavy = {'torch', 'numpy', 'benchmark', 'pydantic', 'transformers'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
