"""Training states: told whole from damaged, continued from, and bound to their best weights."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, distill
from distill.training.evaluation import Judge
from distill.training.states import BestRecord, FileRecord, best_file, recover, seal
from distill.training.trainer import DistillTrainer
from edge.errors import UserError

WEIGHTS = "model.safetensors"
RECIPE = """
name: plain
summary: Two steps an epoch.
student: layers=1,hidden=8
stages:
  - {name: one, batch_size: 24, max_steps: 2, terms: [{match: hidden_states}]}
  - {name: two, batch_size: 24, epochs: 4, learning_rate: 1.0e-3, terms: [{match: logits}]}
"""
# Epoch by epoch: best after the second one, and twice not better.
SCORES = (0.5, 0.7, 0.6, 0.7)
_on_change: Callable[[str], None] | None = None


class Killed(BaseException):
    """The end of a process: nothing that comes after it changes a file."""


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _on_change is None:
        return
    changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    inside = "student.training" in str(args[0]) or (event != "open" and args[-1] not in (-1, None))
    if (changes or writes) and inside:
        _on_change(f"{event} {args[0]}")


sys.addaudithook(_hook)


@pytest.fixture
def at_change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None] | None], None]:
    """Let a function see every change below `student.training` before it is made."""
    return lambda watch: monkeypatch.setattr(sys.modules[__name__], "_on_change", watch)


Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(checkpoint: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = tmp_path_factory.mktemp("recipe") / "plain.yaml"
    recipe.write_text(RECIPE)

    def distil_plain(output: Path, **changes: Any) -> Any:
        values = {
            "teacher": str(checkpoint),
            "train": str(data["train"]),
            "eval": str(data["eval"]),
            "recipe": str(recipe),
            "output": output,
            "save_seconds": 0,
            "early_stopping": 2,
            **changes,
        }
        return distill(DistillConfig.build(values))

    return distil_plain


@pytest.fixture(scope="module")
def _scores() -> Any:
    """Each model in training is given the score that it had when it was first met."""
    said: dict[str, float] = {}
    judge = Judge.__call__

    def measured(self: Judge, model: Any) -> tuple[str, float]:
        name, value = judge(self, model)
        if not model.training:
            return name, value
        weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
        key = hashlib.sha256(weights).hexdigest()
        # The first stage is measured once, at its end.
        return name, said.setdefault(key, (0.1, *SCORES)[min(len(said), 4)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Judge, "__call__", measured)
        yield


@pytest.fixture(scope="module")
def whole(_scores: None, run: Run, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "out")
    return (folder / "out" / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def stopped(whole: bytes, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run keeps that was stopped in the last epoch of its second stage."""
    folder = tmp_path_factory.mktemp("stopped")
    step = DistillTrainer.training_step

    def stop(self: Any, *args: Any) -> Any:
        if self._name == "two" and self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder / "student")
    assert sorted(path.name for path in (folder / "student.training" / "1-two").iterdir()) == [
        "best-4.safetensors",
        "checkpoint-5",
        "checkpoint-6",
    ]
    return folder / "student.training"


def garbage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for index in range(0, len(data), max(1, len(data) // 9)):
        data[index] ^= 0x5A
    file.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: file.write_bytes(b""),
    "garbage": garbage,
    "gone": lambda file: file.unlink(),
}


def in_place(file: Path, make: Callable[[Path], Any]) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    make(file)


DAMAGE_OF_KIND: dict[str, Callable[[Path], Any]] = {
    **DAMAGE,
    "a file": lambda path: in_place(path, Path.touch),
    "a folder": lambda path: in_place(path, Path.mkdir),
}
LAST, BEST = "1-two/checkpoint-6", "1-two/best-4.safetensors"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (f"{LAST}/optimizer.pt", "cut", r"state of step 6 \(optimizer.pt has .*from step 5"),
        (f"{LAST}/rng_state.pth", "garbage", "rng_state.pth has other contents.*from step 5"),
        (f"{LAST}/trainer_state.json", "emptied", "trainer_state.json has 0 bytes.*from step 5"),
        (f"{LAST}/state.json", "garbage", "state.json cannot be read.*from step 5"),
        (BEST, "cut", "best-4.*step 5 .best-4.*: starting the stage over"),
        ("0-one/model.safetensors", "garbage", "0-one: what the finished stage left is damaged"),
        ("0-one/finished.json", "emptied", "finished.json cannot be read.: starting it over"),
        ("fingerprint.json", "cut", "fingerprint.json cannot be read: starting over"),
        ("fingerprint.json", "gone", "fingerprint.json cannot be read: starting over"),
        ("1-two", "a file", "1-two is damaged, a file in place of a folder: starting the stage"),
        (BEST, "a folder", "best-4.safetensors is missing.*: starting the stage over"),
    ],
)
def test_a_damaged_state_is_passed_over(
    run: Run,
    whole: bytes,
    stopped: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    damage: str,
    said: str,
) -> None:
    shutil.copytree(stopped, tmp_path / "student.training")
    DAMAGE_OF_KIND[damage](tmp_path / "student.training" / name)
    run(tmp_path / "student", resume=name == "fingerprint.json" and damage == "cut")
    lines = " ".join(capfd.readouterr().err.split())
    assert re.search(said, lines), lines
    assert (tmp_path / "student" / WEIGHTS).read_bytes() == whole
    assert not (tmp_path / "student.training").exists()


def make_states(stage: Path) -> list[Path]:
    """Two states with the files that Trainer writes, and best weights of step 3."""
    stage.mkdir()
    best_file(stage, 3).write_bytes(b"best" * 9)
    record = FileRecord.of(best_file(stage, 3))
    states = [stage / "checkpoint-9", stage / "checkpoint-10"]
    for state in states:
        state.mkdir()
        for name in (
            WEIGHTS,
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "trainer_state.json",
        ):
            (state / name).write_bytes(f"{state} {name}".encode() * 5)
        seal(state, BestRecord(step=3, after=0, file=record))
    return states


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_file_of_a_state_is_checked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    names = sorted(path.name for path in make_states(tmp_path / "names")[1].iterdir())
    assert "state.json" in names and len(names) == 6
    for name in names:
        older, newer = make_states(tmp_path / name)
        DAMAGE[damage](newer / name)
        assert recover(tmp_path / name) == older
        assert not newer.exists() and best_file(tmp_path / name, 3).exists()
        assert "damaged state of step 10 (" in capfd.readouterr().err
        assert recover(tmp_path / name) == older
        assert capfd.readouterr().err == ""
        DAMAGE[damage](best_file(tmp_path / name, 3))
        assert recover(tmp_path / name) is None
        assert "best-3.safetensors" in capfd.readouterr().err
        assert list((tmp_path / name).iterdir()) == []


def test_what_is_ahead_of_a_state_is_dropped(tmp_path: Path) -> None:
    newest = make_states(tmp_path / "stage")[1]
    best_file(tmp_path / "stage", 11).write_bytes(b"of an evaluation that comes again")
    (tmp_path / "stage" / "checkpoint-11").mkdir()
    (tmp_path / "stage" / "checkpoint-x").mkdir()
    assert recover(tmp_path / "stage") == newest
    names = sorted(path.name for path in (tmp_path / "stage").iterdir())
    assert names == ["best-3.safetensors", "checkpoint-10", "checkpoint-9", "checkpoint-x"]


def test_killed_at_every_change_between_best_weights_and_state(
    run: Run, whole: bytes, tmp_path: Path, at_change: Callable[[Any], None]
) -> None:
    changes: list[str] = []
    at_change(changes.append)
    run(tmp_path / "student")
    at_change(None)
    two = [index for index, change in enumerate(changes) if "1-two" in change]
    start = next(index for index in two if "best-4" in changes[index])
    end = next(index for index in two if "checkpoint-5" in changes[index])
    assert end - start > 10
    for point in range(start, end):
        folder = tmp_path / str(point)
        folder.mkdir()
        count = 0

        def die(_: str, point: int = point) -> None:
            nonlocal count
            count += 1
            if count > point:
                raise Killed

        at_change(die)
        with pytest.raises(Killed):
            run(folder / "student")
        at_change(None)
        run(folder / "student")
        assert (folder / "student" / WEIGHTS).read_bytes() == whole, changes[point]
        shutil.rmtree(folder)


def test_early_stopping_that_begins_when_a_run_is_resumed(
    run: Run, stopped: Path, tmp_path: Path
) -> None:
    """The evaluations before have no weights that could be taken: the best of those after are."""
    with pytest.MonkeyPatch.context() as patch:
        step = DistillTrainer.training_step

        def stop(self: Any, *args: Any) -> Any:
            if self._name == "two" and self.state.global_step == 4:
                raise KeyboardInterrupt
            return step(self, *args)

        patch.setattr(DistillTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "student", early_stopping=None)
    run(tmp_path / "student", early_stopping=1, resume=True, epochs=6)
    assert (tmp_path / "student" / WEIGHTS).is_file()


def test_a_run_that_died_before_it_kept_anything(run: Run, tmp_path: Path) -> None:
    (tmp_path / "student.training" / ".fingerprint.json.partial-abc").mkdir(parents=True)
    with pytest.raises(UserError, match="keeps no run to resume"):
        run(tmp_path / "student", resume=True)
    run(tmp_path / "student", max_steps=1, early_stopping=None)
    assert not (tmp_path / "student.training").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_training_state_is_left_alone(run: Run, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "student.training"
    mine = place if kind == "file" else place / "notes.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"student.training is in the way of the training state"):
        run(tmp_path / "student")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "distillation.json"])
def test_a_damaged_assistant_is_trained_again(
    checkpoint: Path,
    data: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    values = {
        "teacher": str(checkpoint),
        "train": str(data["train"]),
        "recipe": "kd",
        "assistants": ("layers=2",),
        "student": "layers=1",
        "batch_size": 24,
        "max_steps": 1,
    }

    def run(output: Path) -> bytes:
        distill(DistillConfig.build({**values, "output": output}))
        return (output / WEIGHTS).read_bytes()

    expected = run(tmp_path / "whole")
    step = DistillTrainer.training_step

    def stop(self: Any, *args: Any) -> Any:
        if self.args.output_dir.endswith("student.training/0-train"):
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "student")
    garbage(tmp_path / "student.training" / "assistant-1" / name)
    assert run(tmp_path / "student") == expected
    assert f"assistant-1 is damaged ({name} " in capfd.readouterr().err
