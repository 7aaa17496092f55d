"""Distilled students, trained once and reused, and their scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Settings of a run that leaves a student untrained: one step with a negligible learning rate.
UNTRAINED = {"max_steps": 1, "learning_rate": 1e-12}


def set_threads(threads: int) -> None:
    """Set torch's threads before it is imported; threads wait without spinning."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def distilled_student(folder: Path, **settings: Any) -> Path:
    """Return the folder of a finished run; settings: of `DistillConfig`."""
    from distill import DistillConfig, distill

    if not folder.exists():
        distill(DistillConfig.build({**settings, "output": folder}))
    return folder


def scores(folder: Path, data: Path, *, max_length: int) -> dict[str, float]:
    """Return every metric of a checkpoint on a file of its task, the main one first."""
    from edge.checkpoint import open_checkpoint
    from edge.console import hush
    from edge.reference import Reference

    checkpoint = open_checkpoint(folder)
    with hush():
        reference = Reference(checkpoint)
    table = checkpoint.task.read(str(data))
    examples = checkpoint.task.examples(table, reference.tokenizer, max_length=max_length)
    return dict(examples.score(reference.infer(examples.encodings)))
