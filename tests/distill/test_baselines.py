"""What the same student reaches without a teacher."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distill import DistillConfig, DistillResult, distill
from distill.training.trainer import DistillTrainer
from edge.cli.app import app
from edge.errors import ConfigError

RECIPE = """
name: two
summary: A stage on the inside with two epochs of 6 steps, and one on answers.
student: layers=2
stages:
  - name: inside
    batch_size: 8
    epochs: 2
    learning_rate: 1.0e-2
    terms: [{match: hidden_states}]
  - name: answers
    batch_size: 16
    epochs: 4
    learning_rate: 5.0e-3
    schedule: cosine
    terms: [{match: logits}]
"""


@pytest.fixture
def run(taught: Path, data: dict[str, Path], tmp_path: Path) -> Callable[..., DistillResult]:
    (tmp_path / "two.yaml").write_text(RECIPE)

    def distil_tiny(**changes: Any) -> DistillResult:
        values = {
            "teacher": str(taught),
            "train": str(data["train"]),
            "eval": str(data["eval"]),
            "recipe": str(tmp_path / "two.yaml"),
            "output": tmp_path / "student",
            "baselines": True,
            "save_seconds": 0,
            **changes,
        }
        return distill(DistillConfig.build(values))

    return distil_tiny


def log_of(folder: Path, stage: str) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == stage and row["loss"]]


def test_both_baselines_are_reported(
    run: Callable[..., DistillResult], data: dict[str, Path], tmp_path: Path
) -> None:
    result = run()
    assert result.baselines is not None
    assert set(result.baselines) == {"without-teacher", "random"}
    record = json.loads((tmp_path / "student" / "distillation.json").read_text())
    assert record["baselines"] == result.baselines
    # 2 x 6 steps of 8 rows and 4 x 3 of 16 are 288 rows, or 18 steps of 16.
    for start in result.baselines:
        rows = log_of(tmp_path / "student", f"baseline-{start}")
        assert [int(row["step"]) for row in rows] == list(range(1, 19))
        assert max(float(row["learning_rate"]) for row in rows) == pytest.approx(5e-3)
        assert all(row["labels"] and not row["logits"] for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student", "two.yaml"]


def test_the_baseline_is_a_run_of_finetune(
    run: Callable[..., DistillResult], taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """The same first loss as the recipe `finetune` gives the same student."""
    run()
    alone = run(
        recipe="finetune", student="layers=2", batch_size=16, max_steps=18, learning_rate=5e-3,
        baselines=False, output=tmp_path / "alone",
    )  # fmt: skip
    assert alone.baselines is None
    ours = log_of(tmp_path / "student", "baseline-without-teacher")[0]
    theirs = log_of(tmp_path / "alone", "train")[0]
    assert ours["labels"] == theirs["labels"]
    random = log_of(tmp_path / "student", "baseline-random")[0]
    assert random["labels"] != ours["labels"]


def test_baselines_change_nothing_of_the_student(
    run: Callable[..., DistillResult], tmp_path: Path
) -> None:
    run(output=tmp_path / "with")
    run(output=tmp_path / "without", baselines=False)
    files = [tmp_path / name / "model.safetensors" for name in ("with", "without")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_baseline_is_continued(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = run(output=tmp_path / "whole")
    step, count = DistillTrainer.training_step, 0

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 12 + 12 + 18 + 5:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "training_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert not (tmp_path / "student").exists()
        continued = run()
    assert "continuing the run kept in" in capfd.readouterr().err
    assert count == 12 + 12 + 2 * 18 + 1
    assert continued.baselines == whole.baselines
    logs = [(tmp_path / name / "training_log.csv").read_text() for name in ("whole", "student")]
    assert logs[0] == logs[1]


def test_what_is_printed(taught: Path, data: dict[str, Path], tmp_path: Path) -> None:
    arguments = [
        "distill", "--teacher", str(taught), "--train", str(data["train"]),
        "--eval", str(data["eval"]), "--recipe", "kd", "--student", "layers=1",
        "--max-steps", "2", "--baselines", "--output", str(tmp_path / "student"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.rsplit(maxsplit=1)[0].strip() for line in result.stdout.splitlines()]
    assert lines[-2:] == ["the student without a teacher", "the student from random weights"]


def test_without_rows_to_measure_on(run: Callable[..., DistillResult]) -> None:
    with pytest.raises(ConfigError, match="baselines are compared by a metric: .* with --eval"):
        run(eval=None)
