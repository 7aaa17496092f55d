"""Common parts of all imported rows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from benchmark.contradictions import unique_keys
from benchmark.devices import Loaded, Warmed
from benchmark.measure.rows import latency_of
from benchmark.measure.sampler import Samples
from benchmark.schema import (
    Accuracy,
    ConditionsPair,
    DeviceInfo,
    InputsInfo,
    Latency,
    Memory,
    Model,
    Operator,
    ProtocolInfo,
    Row,
    Runtime,
    Tool,
    Validity,
)
from edge.errors import DataError
from edge.precision import Precision

UNKNOWN = "unknown"
_UNPROVEN = "imported: its inputs, the state of its machine and its answers are not known"
_BYTES_PER_MIB = 1 << 20


@dataclass(frozen=True)
class ResultFile:
    """A file of another program."""

    path: Path
    content: bytes

    @cached_property
    def text(self) -> str | None:
        """The file's text; None for a binary file."""
        if b"\0" in self.content:
            return None
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    @cached_property
    def json(self) -> dict[str, Any]:
        """The file's JSON object; empty for another kind of file."""
        try:
            value = json.loads(self.text or "", object_pairs_hook=unique_keys)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def run_id(self) -> str:
        """Identifier of the file's content, independent of its path."""
        return f"imported-{hashlib.sha256(self.content).hexdigest()[:16]}"

    def broken(self, fault: str) -> DataError:
        """Return the error for a broken file of a known kind."""
        return DataError(f"{self.path}: {fault}: let the tool finish and save its output again")


@dataclass(frozen=True)
class ToolResult:
    """Content of a tool's result file, from which `row_of` makes a row.

    name: of the model. reasons: reservations beside being imported. refused: reason for an invalid
    latency. untimed: reason for a missing latency.
    """

    tool: Tool
    name: str
    format: str
    engine: str
    version: str | None = None
    provider: str | None = None
    threads: int | None = None
    size_bytes: int | None = None
    device: DeviceInfo | None = None
    seq_len: int | None = None
    batch: int = 1
    dataset: str | None = None
    warmup: int | None = None
    min_runs: int | None = None
    min_s: float | None = None
    latency: Latency | None = None
    memory: Memory | None = None
    accuracy: Accuracy | None = None
    operators: tuple[Operator, ...] = ()
    started_utc: str | None = None
    run_id: str | None = None
    reasons: tuple[str, ...] = ()
    refused: str | None = None
    untimed: str | None = None


def row_of(file: ResultFile, result: ToolResult) -> Row:
    """Return a row with the role "imported", whose latency is never valid."""
    return Row(
        run_id=result.run_id or file.run_id,
        started_utc=result.started_utc or UNKNOWN,
        tool=result.tool,
        role="imported",
        model=Model(
            id=result.name,
            format=result.format,
            precision=precision_in(result.name),
            sha256=None,
            bytes=result.size_bytes,
        ),
        runtime=Runtime(
            name=result.engine,
            version=result.version,
            provider=result.provider,
            threads=result.threads,
        ),
        device=result.device or device_of(),
        inputs=InputsInfo(
            dataset=result.dataset,
            sha256=None,
            batch=result.batch,
            samples=None,
            seq_len=result.seq_len,
            real_len_p50=None,
        ),
        protocol=ProtocolInfo(
            preset=result.tool.name,
            warmup=result.warmup,
            min_runs=result.min_runs,
            min_s=result.min_s,
        ),
        conditions=ConditionsPair(),
        latency_ms=result.latency,
        memory=result.memory,
        accuracy=result.accuracy,
        operators=result.operators,
        validity=_validity(result),
    )


def _validity(result: ToolResult) -> Validity:
    if result.latency is None:
        return Validity(
            status="not_measured", reasons=(result.untimed or "no latency in the file",)
        )
    if result.refused is not None:
        return Validity(status="invalid", reasons=(result.refused, _UNPROVEN))
    return Validity(status="limited", reasons=(_UNPROVEN, *result.reasons))


def device_of(
    model: str | None = None,
    *,
    soc: str | None = None,
    abi: str | None = None,
    cores: int | None = None,
    os: str | None = None,
    ram_mb: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> DeviceInfo:
    """Return the device of an imported row, as far as its file describes it."""
    return DeviceInfo(
        driver="import",
        kind="real",
        model=model or None,
        soc=soc or None,
        abi=abi or None,
        cores=cores,
        os=os or None,
        ram_mb=ram_mb,
        versions=dict(versions or {}),
    )


def runs_latency(values_ns: Sequence[float], *, load: float | None, first: float | None) -> Latency:
    """Return the statistics of single runs; without an interval, since there is one round."""
    raw = np.asarray(values_ns, np.int64)
    samples = Samples(Loaded(load or 0.0, first or 0.0), Warmed(0, 0.0), {0: raw}, len(raw))
    return latency_of(samples, seed=0).model_copy(update={"load": load, "first": first})


def operators_of(spent: Mapping[str, tuple[int, float]]) -> tuple[Operator, ...]:
    """Return the operators of type -> (count, milliseconds per inference), the slowest first."""
    total = sum(ms for _, ms in spent.values())
    return tuple(
        Operator(type=kind, count=count, total_ms=ms, share=ms / total if total else 0.0)
        for kind, (count, ms) in sorted(spent.items(), key=lambda item: -item[1][1])
    )


def precision_in(name: str) -> str:
    """Return the precision that is a word of a model's name, else "unknown"."""
    words = f"-{'-'.join(re.split(r'[^a-z0-9]+', name.lower()))}-"
    known = sorted((precision.value for precision in Precision), key=len, reverse=True)
    return next((value for value in known if f"-{value}-" in words), UNKNOWN)


def file_stem(path: str) -> str:
    """Return the stem of a path, of Windows or POSIX."""
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return pure.stem or path


def mib_bytes(mib: float | None) -> int | None:
    """Return the bytes of a number of MiB, which some tools call MB."""
    return None if mib is None else round(mib * _BYTES_PER_MIB)
