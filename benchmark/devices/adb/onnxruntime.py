"""ONNX Runtime's `onnxruntime_perf_test` on an Android device."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.config import Block, Protocol
from benchmark.devices.adb import logs
from benchmark.devices.adb.link import quoted
from benchmark.devices.adb.staging import Staging
from benchmark.devices.adb.tool_timer import (
    MARGIN,
    PROFILED_RUNS,
    UNRECORDED_S,
    ToolOutput,
    ToolTimer,
    rounded_mb,
)
from benchmark.devices.adb.tools import Tool
from benchmark.devices.base import Job, Loaded, Turn, Warmed
from benchmark.measure.inputs import Feed
from benchmark.schema import Memory, Operator

_NS_PER_S = 1e9
# Enough to estimate the number of runs of the warm-up.
_FIRST_RUNS = 5


class PerfTimer(ToolTimer):
    """ONNX Runtime's `onnxruntime_perf_test`: every single run, of inputs in random order.

    It prints no outputs, so they cannot be verified on the device.
    """

    def __init__(
        self, staging: Staging, job: Job, tool: Tool, cores: tuple[int, ...] | None
    ) -> None:
        super().__init__(staging, job, tool, cores)
        self._run_s = 0.0
        self._peak_bytes: int | None = None
        graph, beside = quoted(staging.place(job.path)), quoted(f"{self.folder}/model.onnx")
        # It reads inputs beside the model, and several settings share a model.
        staging.link.check(
            f"ln {graph} {beside} 2>/dev/null || ln -s {graph} {beside} || cp {graph} {beside}",
            "placing the model",
        )
        self._write(job.feeds)

    def first_run(self) -> Loaded:
        completed, raw_ns = self._times(_FIRST_RUNS)
        log = logs.read_perf_log(completed.log)
        if log.load_ms is None or log.first_ms is None:
            raise self.missing_value("how long loading took")
        self._run_s = float(np.median(raw_ns)) / _NS_PER_S
        return Loaded(load_ms=log.load_ms, first_ms=log.first_ms)

    def warm(self, protocol: Protocol) -> Warmed:
        runs = self._runs(protocol.warmup_runs, protocol.warmup_s, protocol.warmup_max_s)
        _, raw_ns = self._times(runs)
        self._run_s = float(np.median(raw_ns)) / _NS_PER_S
        return Warmed(runs=len(raw_ns), duration_s=sum(raw_ns) / _NS_PER_S)

    def turn(self, block: Block) -> Turn:
        recorded: list[int] = []
        processor_s: list[float | None] = []
        unrecorded_ns = 0
        # The tool takes a number of runs, not seconds: repeat it if runs were faster than expected.
        while len(recorded) < block.runs or sum(recorded) < block.min_s * _NS_PER_S:
            spent_s = (unrecorded_ns + sum(recorded)) / _NS_PER_S
            if recorded and spent_s >= block.max_s:
                break
            skipped = math.ceil(UNRECORDED_S / self._run_s) if self._run_s < UNRECORDED_S else 0
            left_s = block.min_s * MARGIN - sum(recorded) / _NS_PER_S
            runs = self._runs(
                block.runs - len(recorded), left_s, block.max_s - UNRECORDED_S - spent_s
            )
            completed, raw_ns = self._times(skipped + runs)
            recorded += raw_ns[skipped:]
            unrecorded_ns += sum(raw_ns[:skipped])
            processor_s.append(completed.processor_s)
            self._run_s = float(np.median(raw_ns[skipped:])) / _NS_PER_S
        known = [spent for spent in processor_s if spent is not None]
        return Turn(
            raw_ns=recorded,
            duration_s=(unrecorded_ns + sum(recorded)) / _NS_PER_S,
            processor_s=sum(known) if len(known) == len(processor_s) else None,
        )

    def memory(self) -> Memory | None:
        if self._peak_bytes is None:
            return None
        return Memory(peak_rss_mb=rounded_mb(self._peak_bytes / 1e6))

    def profile(self) -> tuple[Operator, ...] | None:
        from benchmark.worker.profiling import onnxruntime_operators

        self._times(2 * PROFILED_RUNS - 1, "-p", "profile")
        with tempfile.TemporaryDirectory() as scratch:
            name = self.link.check(
                f"cd {quoted(self.folder)} && ls profile*.json", "looking for the profile"
            ).split()[-1]
            self.link.pull(f"{self.folder}/{name}", Path(scratch) / "profile.json")
            operators = onnxruntime_operators(Path(scratch) / "profile.json", PROFILED_RUNS)
        return tuple(Operator(**operator) for operator in operators) or None

    def arguments(self) -> list[str]:
        threads = str(self.job.threads)
        return ["-e", "cpu", "-m", "times", "-x", threads, "-y", "1", "-o", "99"]

    def _runs(self, runs: int, min_s: float, max_s: float) -> int:
        """Return the number of runs that fill `min_s`, at the speed of the previous runs."""
        enough = max(runs, math.ceil(min_s / self._run_s))
        return max(1, min(enough, math.floor(max(max_s, min_s) / self._run_s)))

    def _times(self, runs: int, *arguments: str) -> tuple[ToolOutput, list[int]]:
        """Run the tool; return its output and the nanoseconds of all runs after the first."""
        # It appends to an existing result file.
        self.link.shell(f"rm -f {quoted(self.folder)}/result")
        completed = self.run_tool([*arguments, "-r", str(runs), "model.onnx", "result"])
        text = self.link.check(f"cat {quoted(self.folder)}/result", "reading the result")
        result = logs.read_perf_result(text)
        if len(result.raw_ns) != runs:
            raise self.missing_value(f"how long each of its {runs} runs took")
        self._peak_bytes = max(self._peak_bytes or 0, result.peak_bytes or 0) or None
        return completed, result.raw_ns

    def _write(self, feeds: Sequence[Feed]) -> None:
        """Push each feed as a test data set beside the model."""
        from onnx import numpy_helper

        with tempfile.TemporaryDirectory() as scratch:
            folders = []
            for number, feed in enumerate(feeds):
                folder = Path(scratch) / f"test_data_set_{number}"
                folder.mkdir()
                for index, (name, values) in enumerate(feed.items()):
                    tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
                    (folder / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
                folders.append(folder)
            self.link.push(folders, f"{self.folder}/")
