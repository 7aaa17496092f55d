"""LiteRT's `benchmark_model` on an Android device."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmark.config import Block, Protocol
from benchmark.devices.adb import logs
from benchmark.devices.adb.link import quoted
from benchmark.devices.adb.signatures import Signature, read_signatures
from benchmark.devices.adb.staging import Staging
from benchmark.devices.adb.tool_timer import (
    MARGIN,
    PROFILED_RUNS,
    UNRECORDED_S,
    ToolTimer,
    rounded_mb,
)
from benchmark.devices.adb.tools import Tool
from benchmark.devices.base import Job, Loaded, ModelRefused, Turn, Warmed
from benchmark.measure.inputs import Feed
from benchmark.schema import Memory, Operator
from edge.errors import MeasurementError
from edge.process.wire import Array

# Each feed is a line of some 500 characters of a script; adb accepts 65,535.
_ANSWERS_AT_ONCE = 32
# Without these flags it would run other inputs, or another length.
_NEEDED = ("num_threads", "input_layer", "input_layer_value_files", "signature_to_run_for")
_NO_MEDIAN = "this build of benchmark_model prints no median: its mean stands for each turn"


class ModelTimer(ToolTimer):
    """LiteRT's `benchmark_model`: statistics of a turn, no single runs.

    Every turn runs one input, the next turn the next.
    """

    def __init__(
        self, staging: Staging, job: Job, tool: Tool, cores: tuple[int, ...] | None
    ) -> None:
        super().__init__(staging, job, tool, cores)
        self._next, self._shows_outputs = 0, True
        self._signatures = read_signatures(job.path)
        self._graph = staging.place(job.path)
        self._write(job.feeds, "inputs")

    def first_run(self) -> Loaded:
        completed = self.run_tool(
            [
                *self._first_input(),
                *("--num_runs=1", "--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0"),
                "--output_filepath=first",
            ]
        )
        ignored = logs.ignored_flags(completed.log)
        if unknown := [flag for flag in _NEEDED if flag in ignored]:
            raise ModelRefused(
                f"{self.job.label}: this build of {self.program} does not know --{unknown[0]}: "
                "get the one of docs/android.md"
            )
        self._shows_outputs = "output_filepath" not in ignored
        log = logs.read_model_log(completed.log)
        if log.init_ms is None or log.first_ms is None:
            raise self.missing_value("how long loading took")
        return Loaded(load_ms=log.init_ms, first_ms=log.first_ms)

    def warm(self, protocol: Protocol) -> Warmed:
        log = self._timed(
            [
                f"--num_runs={protocol.warmup_runs}",
                f"--min_secs={protocol.warmup_s:g}",
                f"--max_secs={protocol.warmup_max_s:g}",
                "--warmup_runs=1",
            ]
        )
        runs = self._recorded(log)
        no_median = runs.median is None and runs.count > 1
        return Warmed(runs.count, runs.total_s, notes=(_NO_MEDIAN,) if no_median else ())

    def turn(self, block: Block) -> Turn:
        number, self._next = self._next, (self._next + 1) % len(self.job.feeds)
        completed = self.run_tool(
            [
                *self._input(self.job.feeds[number], f"inputs/{number}"),
                f"--num_runs={block.runs}",
                f"--min_secs={block.min_s * MARGIN:g}",
                f"--max_secs={max(block.max_s - UNRECORDED_S, block.min_s * MARGIN):g}",
                "--warmup_runs=1",
                f"--warmup_min_secs={UNRECORDED_S:g}",
            ]
        )
        log = logs.read_model_log(completed.log)
        runs = self._recorded(log)
        unrecorded_s = 0.0 if log.warm is None else log.warm.total_s
        # Without starting the tool and opening the model, as on other devices.
        return Turn(
            raw_ns=[round(runs.median_or_mean * 1e3)],
            duration_s=unrecorded_s + runs.total_s,
            processor_s=completed.processor_s,
            single=False,
            runs=runs.count,
        )

    def memory(self) -> Memory | None:
        log = self._timed(["--num_runs=8", "--min_secs=0", "--report_peak_memory_footprint=true"])
        if log.peak_mb is None and log.delta_mb is None:
            return None
        return Memory(peak_rss_mb=rounded_mb(log.peak_mb), delta_mb=rounded_mb(log.delta_mb))

    def profile(self) -> tuple[Operator, ...] | None:
        completed = self.run_tool(
            [
                *self._first_input(),
                f"--num_runs={PROFILED_RUNS}",
                "--min_secs=0",
                "--enable_op_profiling=true",
            ]
        )
        spent = logs.read_operators(completed.log)
        total = sum(operator.total_ms for operator in spent) or 1.0
        return (
            tuple(
                Operator(
                    type=operator.type,
                    count=operator.count,
                    total_ms=operator.total_ms,
                    share=operator.total_ms / total,
                )
                for operator in spent
            )
            or None
        )

    def answers(self, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]] | None:
        return self._answers(feeds) if self._shows_outputs else None

    def _answers(self, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
        for start in range(0, len(feeds), _ANSWERS_AT_ONCE):
            yield from self._batch(feeds[start : start + _ANSWERS_AT_ONCE])

    def _batch(self, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
        """Run one process per feed, in one script, and pull all outputs at once."""
        self._write(feeds, "asked")
        lines = [f"cd {quoted(self.folder)} || exit 1", "mkdir -p answered"]
        for number, feed in enumerate(feeds):
            arguments = [
                *self.arguments(),
                *self._input(feed, f"asked/{number}"),
                *("--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"),
                f"--output_filepath=answered/{number}",
            ]
            lines.append(f"{self.command(arguments)} > log 2>&1 || {{ cat log; exit 1; }}")
        done = self.link.shell("\n".join(lines))
        if done.code != 0:
            raise self.failure(done.output, done.code)
        with tempfile.TemporaryDirectory() as scratch:
            self.link.pull(f"{self.folder}/answered", Path(scratch))
            for number, feed in enumerate(feeds):
                file = Path(scratch) / "answered" / str(number)
                if not file.is_file():
                    raise self.missing_value("its outputs")
                yield _outputs(self._signature(feed), file.read_bytes(), self.job.label)
        self.link.shell(f"cd {quoted(self.folder)} && rm -rf asked answered log")

    def arguments(self) -> list[str]:
        return [f"--graph={self._graph}", f"--num_threads={self.job.threads}"]

    def _timed(self, arguments: Sequence[str]) -> logs.ModelLog:
        quiet = ["--warmup_min_secs=0", *self._first_input()]
        return logs.read_model_log(self.run_tool([*quiet, *arguments]).log)

    def _recorded(self, log: logs.ModelLog) -> logs.Runs:
        if log.recorded is None or not log.recorded.count:
            raise self.missing_value("how long its runs took")
        return log.recorded

    def _first_input(self) -> list[str]:
        return self._input(self.job.feeds[0], "inputs/0")

    def _input(self, feed: Feed, folder: str) -> list[str]:
        """Return the flags of a feed: inputs in the order of the graph, under any name."""
        signature = self._signature(feed)
        names = [f"input{n}" for n in range(len(signature.inputs))]
        shapes = [",".join(map(str, feed[tensor.name].shape)) for tensor in signature.inputs]
        files = [f"{name}:{folder}/{number}" for number, name in enumerate(names)]
        return [
            *([f"--signature_to_run_for={signature.key}"] if signature.key else []),
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}",
        ]

    def _signature(self, feed: Feed) -> Signature:
        length = next(iter(feed.values())).shape[1]
        if length not in self._signatures:
            accepted = ", ".join(map(str, sorted(self._signatures)))
            raise MeasurementError(f"{self.job.label} accepts {accepted} tokens, not {length}")
        return self._signatures[length]

    def _write(self, feeds: Sequence[Feed], name: str) -> None:
        """Push feeds as files NUMBER/INPUT into the folder `name` of the device."""
        with tempfile.TemporaryDirectory() as scratch:
            for number, feed in enumerate(feeds):
                target = Path(scratch) / name / str(number)
                target.mkdir(parents=True)
                for index, tensor in enumerate(self._signature(feed).inputs):
                    values = np.ascontiguousarray(feed[tensor.name], tensor.dtype)
                    (target / str(index)).write_bytes(values.tobytes())
            self.link.push([Path(scratch) / name], f"{self.folder}/")


def _outputs(signature: Signature, data: bytes, label: str) -> dict[str, Array]:
    """Return the tensors of an output file, which are concatenated."""
    expected = sum(tensor.size_bytes for tensor in signature.outputs)
    if len(data) != expected:
        raise MeasurementError(f"{label}: {len(data)} bytes of output came back, not {expected}")
    outputs, start = {}, 0
    for tensor in signature.outputs:
        values = np.frombuffer(data, tensor.dtype, offset=start, count=math.prod(tensor.shape))
        outputs[tensor.name] = values.reshape(tensor.shape)
        start += tensor.size_bytes
    return outputs
