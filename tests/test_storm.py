"""A small storm: what every command writes with, killed at each change, and on a full disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(
    shutil.which("gcc") is None or sys.platform != "linux", reason="needs gcc on Linux"
)
@pytest.mark.parametrize(("mode", "stride"), [("kill", 1), ("full", 2), ("read-only", 3)])
def test_storage_survives_a_storm(mode: str, stride: int) -> None:
    # In memory where that is possible: everything is flushed, thousands of times.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as work:
        command = [sys.executable, "-m", "scripts.storm", "storage", "--mode", mode]
        command += ["--stride", str(stride)]
        done = subprocess.run(
            [*command, "--work", work], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.fullmatch(
        rf"storage, {mode}: (\d+) of \d+ changes, left old (\d+) and new (\d+), 0 faults, .*\n",
        done.stdout,
    )
    assert told is not None
    points, old, new = map(int, told.groups())
    assert points > 10 and min(old, new) >= points
