"""This machine: a fresh Python process for every model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from benchmark.config import DeviceOptions
from benchmark.devices.base import Device, DiscoveredDevice, Job, Timer
from benchmark.devices.facts import SCRIPT, Facts
from benchmark.devices.link import Link
from benchmark.devices.messages import MessageTimer
from benchmark.measure import environment
from benchmark.schema import Conditions, DeviceInfo
from edge.engines import get_engine
from edge.engines.base import Availability
from edge.errors import ConfigError
from edge.formats import FORMATS
from edge.process.wire import Array, Arrays, Message

_ROOT = Path(__file__).resolve().parents[2]


class LocalDevice(Device):
    """The machine this program runs on."""

    kind = "local"
    restarts = True

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        if address is not None:
            raise ConfigError(f"there is one local device: use --device local, not local:{address}")
        self._timeout_s = options.timeout_s

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List this machine, which is always available."""
        formats = (
            name
            for name, f in FORMATS.items()
            if get_engine(f.runtimes[0]).availability().available
        )
        return [
            DiscoveredDevice(
                cls.kind, environment.describe().model or "this machine", tuple(formats)
            )
        ]

    def availability(self, engine: str) -> Availability:
        return get_engine(engine).availability()

    def describe(self) -> DeviceInfo:
        return environment.describe(driver=self.kind)

    def conditions(self) -> Conditions:
        return environment.conditions()

    def affinity(self, threads: int) -> tuple[int, ...] | None:
        return self._fast_cores(threads) or environment.affinity()

    @staticmethod
    def _fast_cores(threads: int) -> tuple[int, ...] | None:
        """Return the fastest cores, if cores differ and those are enough for the threads."""
        return _facts().fast_cores(threads)

    def open(self, job: Job) -> Timer:
        return _LocalTimer(job, self._timeout_s, self._fast_cores(job.threads))


@lru_cache(maxsize=1)
def _facts() -> Facts:
    if sys.platform != "linux":
        return Facts.parse("")
    done = subprocess.run(["sh"], input=SCRIPT, capture_output=True, text=True, check=False)
    return Facts.parse(done.stdout)


class _LocalTimer(MessageTimer):
    def __init__(self, job: Job, timeout_s: float, cores: Sequence[int] | None) -> None:
        super().__init__(job)
        self._timeout_s = timeout_s
        self._link = Link(
            worker_command(sys.executable, cores),
            label=job.label,
            env=worker_environment(job.threads, os.environ),
            # `-m` looks here first, so that no file of the user's folder can take a module's place.
            cwd=_ROOT,
        )

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        return self._link.request(request, arrays, timeout_s=self._timeout_s)

    def close(self) -> None:
        self._link.close()


def worker_command(python: str, cores: Sequence[int] | None) -> list[str]:
    """Return the command of the worker; cores: the cores it may use, None for all."""
    if cores is None:
        return [python, "-m", "benchmark.worker.worker"]
    program = (
        f"import os, runpy; os.sched_setaffinity(0, {set(cores)}); "
        "runpy.run_module('benchmark.worker.worker', run_name='__main__')"
    )
    return [python, "-c", program]


def worker_environment(threads: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's environment: no network, and thread pools of at most `threads`."""
    # `edge` lets waiting threads sleep, for training on busy machines; what is timed must not.
    variables = {name: value for name, value in inherited.items() if name != "OMP_WAIT_POLICY"}
    return {
        **variables,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
