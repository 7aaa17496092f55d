"""Limits that a benchmark has to keep, so that it can guard a CI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ByteSize, Field, model_validator
from typing_extensions import Self

from benchmark.schema import Row
from edge.config import Config, load_yaml
from edge.console import human_bytes, three_figures
from edge.errors import ConfigError


class Limits(Config):
    """What one artifact may cost, at each setting it was timed at.

    p50_ms, p90_ms: latency. size_bytes: of the file, also as "30 MB". memory_mb: what the model
    added, `Memory.delta_mb`. metric: the least value of the task's metric. ratio: the least number
    of times it has to be faster than the baseline, judged by the lower end of the interval.
    valid: whether every row has to be valid.
    """

    p50_ms: float | None = Field(default=None, gt=0)
    p90_ms: float | None = Field(default=None, gt=0)
    size_bytes: ByteSize | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)
    metric: float | None = None
    ratio: float | None = Field(default=None, gt=0)
    valid: bool = False

    def objections(self, row: Row) -> Iterator[str]:
        """One phrase for each limit that a row breaks; what was not measured breaks its limit."""
        latency, memory, accuracy = row.latency_ms, row.memory, row.accuracy
        ratio = row.ratio_to_baseline or row.ratio_same_engine
        least = None if ratio is None else (ratio.ci95 or (ratio.value,))[0]
        p50, p90 = (latency.p50, latency.p90) if latency is not None else (None, None)
        yield from _most("p50", self.p50_ms, p50, "ms")
        yield from _most("p90", self.p90_ms, p90, "ms")
        yield from _most("memory", self.memory_mb, memory.delta_mb if memory else None, "MB")
        if self.size_bytes is not None and (row.model.bytes or 0) > self.size_bytes:
            size, limit = human_bytes(row.model.bytes or 0), human_bytes(self.size_bytes)
            yield f"size {size}, allowed {limit}"
        yield from _least("metric", self.metric, accuracy.value if accuracy else None)
        yield from _least("ratio to the baseline", self.ratio, least)
        if self.valid and row.validity.status != "valid":
            yield f"{row.validity.status.replace('_', ' ')} ({'; '.join(row.validity.reasons)})"


class Budget(Limits):
    """The limits of all artifacts, and further ones by name.

    artifacts: pattern of `Row.model.id`, such as "*/tflite-*" -> limits; each has to match one.
    """

    artifacts: dict[str, Limits] = {}

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("it sets no limit")
        return self

    def broken(self, rows: Sequence[Row]) -> list[str]:
        """One line for each limit that is broken; empty when all are kept."""
        artifacts = [row for row in rows if row.role != "baseline"]
        found = [line for row in artifacts for line in _lines(row, self)]
        for pattern, limits in self.artifacts.items():
            matching = [row for row in artifacts if fnmatchcase(row.model.id, pattern)]
            if not matching:
                found.append(f"no artifact is called '{pattern}'")
            found += [line for row in matching for line in _lines(row, limits)]
        return found


def read_budget(path: Path) -> Budget:
    """A budget file; raises ConfigError when it is not one."""
    if not path.is_file():
        raise ConfigError(f"budget {path} does not exist")
    return Budget.build(load_yaml(path), where=str(path))


def _lines(row: Row, limits: Limits) -> Iterator[str]:
    for phrase in limits.objections(row):
        yield f"{row.model.id} at {row.inputs.seq_len} tokens: {phrase}"


def _most(name: str, limit: float | None, value: float | None, unit: str) -> Iterator[str]:
    if limit is None:
        return
    if value is None:
        yield f"{name} was not measured, allowed {limit:g} {unit}"
    elif value > limit:
        yield f"{name} {three_figures(value)} {unit}, allowed {limit:g} {unit}"


def _least(name: str, limit: float | None, value: float | None) -> Iterator[str]:
    if limit is None:
        return
    if value is None:
        yield f"{name} was not measured, at least {limit:g} asked for"
    elif value < limit:
        yield f"{name} {value:.4g}, at least {limit:g} asked for"
