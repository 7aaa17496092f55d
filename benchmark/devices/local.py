"""This machine: a fresh Python process for every model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmark import environment
from benchmark.config import Protocol
from benchmark.devices.base import Device, Job, Loaded, Timer, Turn, Warmed
from benchmark.link import Link
from benchmark.schema import Conditions, DeviceInfo, Memory
from edge.wire import Array, Message

# Beyond every limit that a protocol sets; only a model that hangs gets there.
_TIMEOUT_S = 600.0
_ROOT = Path(__file__).resolve().parents[2]


class LocalDevice(Device):
    """The machine this program runs on."""

    name = "local"

    def describe(self) -> DeviceInfo:
        return environment.describe(driver=self.name)

    def conditions(self) -> Conditions:
        return environment.conditions()

    def open(self, job: Job) -> Timer:
        return _LocalTimer(job)


class _LocalTimer(Timer):
    def __init__(self, job: Job) -> None:
        self._job = job
        self._link = Link(
            [sys.executable, "-m", "benchmark.worker"],
            label=job.label,
            env=_environment(job.threads),
            # `-m` looks here first, so that no file of the user's folder can take a module's place.
            cwd=_ROOT,
        )

    def load(self) -> Loaded:
        request = {
            "do": "load",
            "engine": self._job.engine,
            "path": str(self._job.path.resolve()),
            "threads": self._job.threads,
        }
        reply = self._ask(request, self._job.inputs)
        return Loaded(load_ms=reply["load_ns"] / 1e6, first_ms=reply["first_ns"] / 1e6)

    def warm(self, protocol: Protocol) -> Warmed:
        request = {
            "do": "warm",
            "runs": protocol.warmup_runs,
            "min_s": protocol.warmup_s,
            "max_s": protocol.warmup_max_s,
        }
        reply = self._ask(request)
        return Warmed(runs=reply["runs"], duration_s=reply["duration_s"])

    def turn(self, protocol: Protocol) -> Turn:
        request = {
            "do": "turn",
            "runs": protocol.block_runs,
            "min_s": protocol.block_s,
            "max_s": protocol.turn_max_s,
        }
        return Turn(**self._ask(request))

    def memory(self) -> Memory:
        reply = self._ask({"do": "memory"})
        peak, before = reply["peak_bytes"], reply["before_bytes"]
        return Memory(
            peak_rss_mb=round(peak / 1e6, 1), delta_mb=round(max(0, peak - before) / 1e6, 1)
        )

    def close(self) -> None:
        self._link.close()

    def _ask(self, request: Message, arrays: Mapping[str, Array] | None = None) -> Message:
        reply, _ = self._link.request(request, arrays, timeout_s=_TIMEOUT_S)
        return reply


def _environment(threads: int) -> dict[str, str]:
    """The worker's environment: no network, and no thread pool larger than what was asked for."""
    # `edge` lets waiting threads sleep, for training on busy machines; what is timed must not.
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {
        **inherited,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_OFFLINE": "1",
    }
