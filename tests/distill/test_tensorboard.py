"""Curves for TensorBoard, where it is installed, and a word where it is not."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, distill
from edge.errors import ConfigError


def settings(checkpoint: Path, data: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "teacher": str(checkpoint),
        "train": str(data["train"]),
        "eval": str(data["eval"]),
        "recipe": "kd",
        "student": "layers=1",
        "batch_size": 16,
        "epochs": 2,
        "save_seconds": 0,
        "output": tmp_path / "student",
        "tensorboard": tmp_path / "board",
    }


def test_where_it_is_not_installed(
    checkpoint: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(ConfigError, match="needs TensorBoard: pip install tensorboard, or leave"):
        distill(DistillConfig.build(settings(checkpoint, data, tmp_path)))
    assert list(tmp_path.iterdir()) == []


class Writer:
    """Takes what a SummaryWriter would."""

    made: list[Writer] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = Path(folder), purge_step
        self.values: dict[tuple[str, int], float] = {}
        self.closed = False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.values[name, step] = value

    def close(self) -> None:
        self.closed = True


def test_every_term_is_drawn(
    checkpoint: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("distill.training.tensorboard.check_tensorboard", lambda: None)
    monkeypatch.setattr(Writer, "made", [])
    distill(DistillConfig.build(settings(checkpoint, data, tmp_path)))
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step) == (tmp_path / "board" / "0-train", 1)
    assert writer.closed
    for name in ("loss", "logits", "labels", "learning_rate", "grad_norm"):
        assert [step for found, step in writer.values if found == name] == [1, 2, 3, 4, 5, 6]
    assert [step for found, step in writer.values if found == "accuracy"] == [3, 6]


def test_files_that_tensorboard_reads(
    checkpoint: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    distill(DistillConfig.build(settings(checkpoint, data, tmp_path)))
    events = EventAccumulator(str(tmp_path / "board" / "0-train"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= {"loss", "logits", "labels", "accuracy"}
    assert [event.step for event in events.Scalars("logits")] == [1, 2, 3, 4, 5, 6]
