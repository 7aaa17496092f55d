"""Two processes train one student: what one alone would make of the same batches."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill import DistillConfig, distill
from distill.data.batches import BucketSampler, StepBatches
from distill.recipe.config import Stage
from distill.training import processes
from distill.training.launch import launch_file
from edge.errors import ConfigError
from tests.distill.conftest import write_rows

ROOT = Path(__file__).parents[2]
DRIVER = str(Path(__file__).with_name("processes_driver.py"))
LIMIT_S = 300
# Of 49 rows the last batch of an epoch has one: one of the processes gets none.
ROWS = 49
LONG = """
name: long
summary: Every kind of term, accumulated and not.
student: layers=2,hidden=8
stages:
  - name: inside
    batch_size: 8
    gradient_accumulation: 2
    epochs: 2
    learning_rate: 1.0e-3
    terms:
      - {match: hidden_states, layers: emd, remap_steps: 2}
      - {match: attention_scores, heads: common}
      - {match: attention_probs, heads: common}
      - {match: relations, of: value, heads: common}
      - {match: embeddings}
  - name: answers
    batch_size: 8
    epochs: 2
    learning_rate: 1.0e-3
    companions: [{kind: peers}]
    unfreeze: {order: down}
    terms:
      - {match: logits, temperature: 2, weight: {start: 1, end: 0.2}}
      - {match: labels}
      - {match: logits, learner: peer-1}
      - {match: logits, teacher: peer-1}
"""
SHORT = """
name: short
summary: Three steps an epoch.
student: layers=2,hidden=8
stages:
  - batch_size: 16
    epochs: 2
    learning_rate: 1.0e-3
    terms: [{match: logits}, {match: hidden_states}, {match: labels}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_rows(folder / "train.tsv", ROWS, seed=1)
    write_rows(folder / "eval.tsv", 24, seed=2)
    (folder / "long.yaml").write_text(LONG)
    (folder / "short.yaml").write_text(SHORT)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    make_checkpoint("bert", **still).rename(folder / "still")
    make_checkpoint("bert").rename(folder / "dropout")
    return folder


def launch(setting: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Start two processes and wait; what is left of them after the limit is ended."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    port = ["--main_process_port", "0", "--config_file", str(launch_file(setting))]
    with subprocess.Popen(
        [*launcher, *port, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, str]:
    """The log of one process, and what it was asked for."""
    arguments = {
        "teacher": str(folder / "still"),
        "train": str(folder / "train.tsv"),
        "eval": str(folder / "eval.tsv"),
        "recipe": str(folder / "long.yaml"),
    }
    distill(DistillConfig.build({**arguments, "output": folder / "one"}))
    return arguments


def check_alike(ours: list[dict[str, str]], theirs: list[dict[str, str]]) -> None:
    assert len(ours) == len(theirs) == 2 * 4 + 2 + 2 * 7 + 2
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if name == "stage" or not value:
                assert two[name] == value
            else:
                assert float(two[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name


def test_two_processes_lose_what_one_does(folder: Path, alone: dict[str, str]) -> None:
    """Each term of each step, what is measured, and the student; one process speaks and writes."""
    options = [f"--{name}={value}" for name, value in alone.items()]
    done = launch("cpu", "-m", "edge.cli.main", "distill", *options, f"--output={folder / 'two'}")
    assert done.returncode == 0, done.stderr
    check_alike(rows_of(folder / "one"), rows_of(folder / "two"))
    assert done.stdout.count("accuracy") == 1
    assert len(done.stdout.splitlines()) == 2
    for said in ("evaluating the teacher", "inside: 8 steps", "answers: 14 steps"):
        assert done.stderr.count(said) == 1, said
    assert json.loads((folder / "two" / "distillation.json").read_text())["processes"] == 2
    assert not (folder / "two.training").exists()


def notes_of(folder: Path, name: str) -> list[str]:
    """What each of the two processes noted."""
    return [(folder / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]


def check_divided(folder: Path, sharder: str) -> None:
    """Half of the teacher is in each process, and nothing is lost by it."""
    assert notes_of(folder, f"{sharder}-parts") == ["0.50", "0.50"]
    check_alike(rows_of(folder / "one"), rows_of(folder / f"{sharder}-sharded"))


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: pip install --no-build-isolation deepspeed",
)
def test_a_teacher_divided_by_deepspeed(folder: Path, alone: dict[str, str]) -> None:
    done = launch("deepspeed", DRIVER, str(folder), "sharded")
    assert done.returncode == 0, done.stderr
    check_divided(folder, "deepspeed")


def test_a_divided_teacher_resume_failures_and_refusals(
    folder: Path, alone: dict[str, str]
) -> None:
    done = launch("fsdp", DRIVER, str(folder), "sharded,resumed,failing,refused,others")
    assert done.returncode == 0, done.stderr

    noted = partial(notes_of, folder)

    def weights(name: str) -> bytes:
        return (folder / name / "model.safetensors").read_bytes()

    check_divided(folder, "fsdp")
    # With dropout, which falls elsewhere in each process.
    assert weights("continued") == weights("whole")
    assert rows_of(folder / "continued") == rows_of(folder / "whole")
    # Four steps before the interruption, the fifth twice, and the rest of eight.
    assert noted("steps") == ["9", "9"]
    first, second = noted("broken")
    assert first.startswith("TrainingError: ") and "at step" in first
    assert second == "SystemExit: 1"
    first, second = noted("full")
    assert first.startswith("StorageError: no space left while writing")
    assert second == "SystemExit: 1"
    assert not (folder / "full").exists()
    first, second = noted("odd")
    assert first == (
        "ConfigError: batch_size 7 of stage 'train' cannot be divided among 2 processes: "
        "use --batch-size 6"
    )
    assert second == "SystemExit: 2"
    assert (folder / "early" / "model.safetensors").is_file()
    assert (folder / "cached" / "model.safetensors").is_file()
    assert done.stderr.count("asking the teacher: 49") == 1
    assert not list(folder.glob("*/checkpoint-*"))


@pytest.mark.parametrize("rows", [16, 17, 23])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_batch_are_the_batch(rows: int, parts: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 9, size=rows)

    def batches(part: int, of: int) -> list[list[int]]:
        return list(StepBatches(BucketSampler(lengths, 8, seed=1), 8, parts=of, part=part))

    whole = batches(0, 1)
    shared = zip(*(batches(part, parts) for part in range(parts)), strict=True)
    for batch, pieces in zip(whole, shared, strict=True):
        assert [row for piece in pieces for row in piece] == batch
        sizes = [len(piece) for piece in pieces]
        assert max(sizes) - min(sizes) <= 1
    assert sorted(row for batch in whole for row in batch) == list(range(rows))


MARGIN: dict[str, Any] = {"terms": [{"match": "margin", "candidates": 4}], "batch_size": 8}


@pytest.mark.parametrize(
    ("stage", "count", "message"),
    [
        (
            MARGIN,
            4,
            "cuts questions of 4 candidates when 4 processes share it: use --batch-size 16",
        ),
        ({**MARGIN, "batch_size": 4}, 8, "cannot be divided among 8 processes: use --batch-size 8"),
    ],
)
def test_batches_that_cannot_be_shared(
    monkeypatch: pytest.MonkeyPatch, stage: dict[str, Any], count: int, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    # A scheduler's variable alone starts nothing.
    assert processes.share_of(Stage.build(stage, where="stage")) == stage["batch_size"]
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match=message):
        processes.share_of(Stage.build(stage, where="stage"))
