"""What a run keeps: the best weights, and a state to continue from whatever went wrong."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, DistillResult, distill
from distill import run as run_module
from distill.training.evaluation import Judge
from distill.training.trainer import DistillTrainer
from edge.errors import ConfigError, StorageError, TrainingError, UserError

WEIGHTS = "model.safetensors"
LOG = "training_log.csv"
RECIPE = """
name: plain
summary: Six steps an epoch.
student: layers=2,hidden=8
stages:
  - batch_size: 8
    epochs: 6
    learning_rate: 1.0e-3
    terms: [{match: logits}, {match: hidden_states}]
"""


@pytest.fixture
def run(checkpoint: Path, data: dict[str, Path], tmp_path: Path) -> Callable[..., DistillResult]:
    (tmp_path / "plain.yaml").write_text(RECIPE)

    def distil_tiny(name: str = "student", **changes: Any) -> DistillResult:
        values = {
            "teacher": str(checkpoint),
            "train": str(data["train"]),
            "eval": str(data["eval"]),
            "recipe": str(tmp_path / "plain.yaml"),
            "output": tmp_path / name,
            "save_seconds": 0,
            **changes,
        }
        return distill(DistillConfig.build(values))

    return distil_tiny


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open(newline="") as file:
        return list(csv.DictReader(file))


def interrupt_at(patch: pytest.MonkeyPatch, batch: int) -> Callable[[], int]:
    """Ctrl-C at the start of a batch, once; gives how many were begun."""
    step, count = DistillTrainer.training_step, 0

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == batch:
            raise KeyboardInterrupt
        return step(self, *args)

    patch.setattr(DistillTrainer, "training_step", interrupt)
    return lambda: count


def say_scores(patch: pytest.MonkeyPatch, *scores: float) -> None:
    """Epoch by epoch, what evaluating the model in training is to give."""
    judge = Judge.__call__
    said: Iterator[float] = iter(scores)

    def measured(self: Judge, model: Any) -> tuple[str, float]:
        name, value = judge(self, model)
        return name, next(said) if model.training else value

    patch.setattr(Judge, "__call__", measured)


def test_the_best_weights_are_taken(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Best after the second epoch, and twice not better: what a checkpoint after it would hold."""
    states: list[dict[str, Any]] = []
    judge = Judge.__call__
    scores = iter([0.5, 0.7, 0.6, 0.7])

    def measured(self: Judge, model: Any) -> tuple[str, float]:
        name, value = judge(self, model)
        if not model.training:
            return name, value
        states.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
        return name, next(scores)

    monkeypatch.setattr(Judge, "__call__", measured)
    run(early_stopping=2)
    from safetensors.torch import load_file

    evaluations = [row for row in rows_of(tmp_path / "student") if row["eval_accuracy"]]
    assert [float(row["eval_accuracy"]) for row in evaluations] == [0.5, 0.7, 0.6, 0.7]
    for name, tensor in load_file(tmp_path / "student" / WEIGHTS).items():
        assert tensor.equal(states[1][name]), name
    assert "accuracy was best, 0.7000, after evaluation 2: taken" in capfd.readouterr().err


@pytest.mark.parametrize("batch", [7, 14, 24])
def test_early_stopping_is_continued_exactly(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    """Stopped at the start of the best epoch, after it, and just before the end."""
    scores = [0.5, 0.7, 0.6, 0.7]
    with monkeypatch.context() as patch:
        say_scores(patch, *scores)
        run("whole", early_stopping=2)
    with monkeypatch.context() as patch:
        say_scores(patch, *scores)
        begun = interrupt_at(patch, batch)
        with pytest.raises(KeyboardInterrupt):
            run(early_stopping=2)
        run(early_stopping=2)
        assert begun() == 25
    whole, student = tmp_path / "whole", tmp_path / "student"
    assert (whole / LOG).read_text() == (student / LOG).read_text()
    assert (whole / WEIGHTS).read_bytes() == (student / WEIGHTS).read_bytes()


INSIDE = RECIPE.replace("{match: logits}, ", "")


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            RECIPE,
            {"early_stopping": 1, "eval": None},
            "looks at the metric after each epoch: .*--eval",
        ),
        (
            INSIDE,
            {"early_stopping": 1},
            "no stage of recipe 'plain' teaches what a student answers",
        ),
        (
            INSIDE.replace("epochs: 6", "early_stopping: 2"),
            {},
            "stage 'train' has early_stopping and no term on the student's answers",
        ),
    ],
)
def test_early_stopping_without_a_metric(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    recipe: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "plain.yaml").write_text(recipe)
    with pytest.raises(ConfigError, match=message):
        run(**changes)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.yaml"]


def break_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Make the second term infinite from a step on, unless the learning rate is low."""
    compute = DistillTrainer.compute_loss

    def broken(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, model, *args, **kwargs)
        if self.state.global_step + 1 >= step and self.args.learning_rate > 5e-4:
            self._window[-1][1] = float("inf")
        return loss

    patch.setattr(DistillTrainer, "compute_loss", broken)


def test_a_run_that_broke_is_resumed_with_another_learning_rate(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    break_at(monkeypatch, 9)
    with pytest.raises(TrainingError) as found:
        run()
    assert str(found.value) == (
        "term 'hidden_states' became inf at step 9: the weights of step 8 are kept, --resume with "
        "a lower --learning-rate or other weights continues from there"
    )
    kept = tmp_path / "student.training" / "0-train"
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoint-7", "checkpoint-8"]
    run(resume=True, learning_rate=1e-4)
    assert "with other settings" in capfd.readouterr().err
    steps = [row for row in rows_of(tmp_path / "student") if row["loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 37))
    rates = [float(row["learning_rate"]) for row in steps]
    # 36 steps, of which four warm up; then down to 0 in a line.
    assert rates[7] == pytest.approx(1e-3 * (36 - 7) / 32)
    assert rates[8:] == pytest.approx([1e-4 * (36 - done) / 32 for done in range(8, 36)])
    record = json.loads((tmp_path / "student" / "distillation.json").read_text())
    assert record["made_from"]["config"]["learning_rate"] == 1e-4
    assert [run["config"]["learning_rate"] for run in record["before_it_was_resumed"]] == [None]


def test_what_cannot_be_resumed(
    run: Callable[..., DistillResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"student.training keeps no run to resume: leave out"):
        run(resume=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            run()
    with pytest.raises(
        UserError, match="was made with another batch_size, student, stages, not only"
    ):
        run(resume=True, student="layers=1", batch_size=4)
    # What was kept is still there.
    assert (tmp_path / "student.training" / "0-train" / "checkpoint-8" / WEIGHTS).is_file()
    run(resume=True)
    assert (tmp_path / "student" / WEIGHTS).is_file()


@pytest.mark.parametrize("full_at", [7, 12])
def test_a_full_disk_loses_nothing(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_at: int,
) -> None:
    """A checkpoint that does not fit goes, the one before it stays, and the run goes on there."""
    run("whole", epochs=3)
    save = DistillTrainer._save_optimizer_and_scheduler

    def fill_up(self: Any, output_dir: str) -> None:
        (Path(output_dir) / "optimizer.pt").write_bytes(b"half of it")
        if self.state.global_step == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "_save_optimizer_and_scheduler", fill_up)
        with pytest.raises(StorageError, match="no space left while writing .*: free some space"):
            run(epochs=3)
    stage = tmp_path / "student.training" / "0-train"
    assert {path.name for path in stage.iterdir()} == {
        f"checkpoint-{full_at - 2}",
        f"checkpoint-{full_at - 1}",
    }
    run(epochs=3)
    files = [tmp_path / name / WEIGHTS for name in ("whole", "student")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_disk_that_is_full_at_the_end(
    run: Callable[..., DistillResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_write_log", fill_up)
        with pytest.raises(StorageError, match="no space left while writing .*student: free"):
            run(epochs=1)
    assert not (tmp_path / "student").exists()
    begun = interrupt_at(monkeypatch, 1)
    run(epochs=1)
    assert begun() == 0
    assert len(rows_of(tmp_path / "student")) == 6 + 1
