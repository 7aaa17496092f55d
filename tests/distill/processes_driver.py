"""What two processes do in `test_processes.py`, one thing after the other to be started once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from distill import DistillConfig, distill
from distill.teachers import sharding
from distill.training.trainer import DistillTrainer
from edge.errors import EdgeError

FOLDER = Path(sys.argv[1])
RECIPE = FOLDER / "short.yaml"


def run(name: str, **changes: Any) -> None:
    values = {
        "teacher": str(FOLDER / "dropout"),
        "train": str(FOLDER / "train.tsv"),
        "eval": str(FOLDER / "eval.tsv"),
        "recipe": str(RECIPE),
        "output": FOLDER / name,
        "save_seconds": 0,
        **changes,
    }
    distill(DistillConfig.build(values))


def note(name: str, text: str) -> None:
    (FOLDER / f"{name}-{os.environ['RANK']}.txt").write_text(text, encoding="utf-8")


def sharded() -> None:
    """The same teacher, in two parts: how many of its weights are here, and of how many."""
    shard = sharding.shard
    sharder = "deepspeed" if "ACCELERATE_USE_DEEPSPEED" in os.environ else "fsdp"

    def look(model: Any) -> Any:
        whole = sum(p.numel() for p in model.parameters())
        parts = shard(model)
        # DeepSpeed keeps the part beside a weight that is empty meanwhile.
        here = [p.to_local() if sharder == "fsdp" else p.ds_tensor for p in parts.parameters()]
        note(f"{sharder}-parts", f"{sum(part.numel() for part in here) / whole:.2f}")
        return parts

    sharding.shard = look
    teacher, recipe = str(FOLDER / "still"), str(FOLDER / "long.yaml")
    run(f"{sharder}-sharded", teacher=teacher, recipe=recipe)
    sharding.shard = shard


def resumed() -> None:
    """Stopped in the middle of an epoch, and continued."""
    run("whole")
    step, count = DistillTrainer.training_step, 0

    def stop(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return step(self, *args)

    DistillTrainer.training_step = stop
    with contextlib.suppress(KeyboardInterrupt):
        run("continued")
    run("continued")
    DistillTrainer.training_step = step
    note("steps", str(count))


def failing() -> None:
    """A loss that is not finite, and a disk that is full for the process that writes."""
    try:
        run("broken", learning_rate=1e30)
    except (EdgeError, SystemExit) as error:
        note("broken", f"{type(error).__name__}: {error}")
    save = DistillTrainer._save

    def fill_up(*args: Any, **kwargs: Any) -> None:
        if os.environ["RANK"] == "0":
            raise OSError(28, "No space left on device")

    DistillTrainer._save = fill_up
    try:
        run("full")
    except (EdgeError, SystemExit) as error:
        note("full", f"{type(error).__name__}: {error}")
    DistillTrainer._save = save


def refused() -> None:
    try:
        run("odd", batch_size=7)
    except (EdgeError, SystemExit) as error:
        note("odd", f"{type(error).__name__}: {error}")


def others() -> None:
    run("early", early_stopping=1, epochs=6)
    run("cached", teacher_cache=FOLDER / "cache")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in sys.argv[2].split(","):
        globals()[name]()
