"""Limits that a benchmark has to keep, for use in CI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ByteSize, Field, model_validator
from typing_extensions import Self

from benchmark.report.labels import Labels, length_words
from benchmark.schema import Row
from edge.config import Config, load_yaml
from edge.console import human_bytes, three_figures
from edge.errors import ConfigError


class Limits(Config):
    """Limits of one artifact, at each setting of the sweep.

    p50_ms, p90_ms: latency. size_bytes: of the file, also as "30 MB". memory_mb: memory added by
    the model, `Memory.delta_mb`. instructions: per inference, counted by an emulator.
    metric: minimum of the task's metric. ratio: minimum speed-up over the baseline, compared with
    the lower end of the interval. valid: every row has to be valid.
    """

    p50_ms: float | None = Field(default=None, gt=0)
    p90_ms: float | None = Field(default=None, gt=0)
    size_bytes: ByteSize | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)
    instructions: int | None = Field(default=None, gt=0)
    metric: float | None = None
    ratio: float | None = Field(default=None, gt=0)
    valid: bool = False

    @property
    def limits_something(self) -> bool:
        """True if any limit is set."""
        return self.valid or any(getattr(self, name) is not None for name in _FIGURES)

    def violations_of(self, row: Row) -> Iterator[str]:
        """Yield one phrase for each limit that a row exceeds; a missing measurement exceeds it."""
        memory, accuracy = row.memory, row.accuracy
        ratio = row.ratio_to_baseline or row.ratio_same_engine
        least = None if ratio is None else (ratio.ci95 or (ratio.value,))[0]
        # An emulator's latency says nothing.
        latency = row.latency_ms if row.device.kind == "real" else None
        p50, p90 = (latency.p50, latency.p90) if latency is not None else (None, None)
        yield from _check_maximum("p50", self.p50_ms, p50, _ms)
        yield from _check_maximum("p90", self.p90_ms, p90, _ms)
        yield from _check_maximum(
            "memory", self.memory_mb, memory.delta_mb if memory else None, _mb
        )
        yield from _check_maximum("size", self.size_bytes, row.model.bytes, human_bytes)
        yield from _check_maximum(
            "instructions", self.instructions, row.instructions, "{:,}".format
        )
        yield from _check_minimum("metric", self.metric, accuracy.value if accuracy else None)
        yield from _check_minimum("ratio to the baseline", self.ratio, least)
        if self.valid and row.validity.status != "valid":
            yield f"{row.validity.status.replace('_', ' ')} ({'; '.join(row.validity.reasons)})"


_FIGURES = tuple(name for name in Limits.model_fields if name != "valid")


class Budget(Limits):
    """The limits of all artifacts, and further ones by name.

    artifacts: pattern of `Row.model.id`, such as "*/tflite-*" -> limits; each has to match one.
    """

    artifacts: dict[str, Limits] = {}

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        empty = [name for name, limits in self.artifacts.items() if not limits.limits_something]
        if empty:
            raise ValueError(f"artifacts.{empty[0]} sets no limit")
        if not self.artifacts and not self.limits_something:
            known = ", ".join((*_FIGURES, "valid", "artifacts"))
            raise ValueError(f"it sets no limit: name at least one of {known}")
        return self

    def violations(self, rows: Sequence[Row]) -> list[str]:
        """Return one line for each exceeded limit; empty if all limits are kept."""
        artifacts = [row for row in rows if row.role != "baseline"]
        if not artifacts:
            return ["no artifact was measured"]
        labels = Labels(artifacts)
        violations = [line for row in artifacts for line in _lines(row, self, labels)]
        for pattern, limits in self.artifacts.items():
            matching = [row for row in artifacts if fnmatchcase(row.model.id, pattern)]
            if not matching:
                violations.append(f"no artifact is called '{pattern}'")
            violations += [line for row in matching for line in _lines(row, limits, labels)]
        return violations


def read_budget(path: Path) -> Budget:
    """Read a budget file; raises ConfigError for an invalid one."""
    if not path.is_file():
        raise ConfigError(f"budget {path} does not exist")
    return Budget.build(load_yaml(path), where=str(path))


def _lines(row: Row, limits: Limits, labels: Labels) -> Iterator[str]:
    where = labels.place(row) or length_words(row.inputs.seq_len)
    for phrase in limits.violations_of(row):
        yield f"{row.model.id} at {where}: {phrase}"


def _ms(value: float) -> str:
    return f"{three_figures(value)} ms"


def _mb(value: float) -> str:
    return f"{three_figures(value)} MB"


def _check_maximum(
    name: str, limit: float | None, value: float | None, form: Callable[[Any], str]
) -> Iterator[str]:
    if limit is None:
        return
    if value is None:
        yield f"{name} was not measured, allowed {form(limit)}"
    elif value > limit:
        yield f"{name} {form(value)}, allowed {form(limit)}"


def _check_minimum(name: str, limit: float | None, value: float | None) -> Iterator[str]:
    if limit is None:
        return
    if value is None:
        yield f"{name} was not measured, at least {limit:g} asked for"
    elif value < limit:
        yield f"{name} {value:.4g}, at least {limit:g} asked for"
