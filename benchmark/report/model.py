"""The content of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from benchmark.keys import bundle_of
from benchmark.ratios import with_current_ratios
from benchmark.report.labels import Labels, device_of
from benchmark.run import BenchmarkResult
from benchmark.schema import Row
from benchmark.titles import join_names
from edge.bundle import Verification
from edge.config import Config
from edge.console import printable

T = TypeVar("T")


class Distillation(Config):
    """The result of a distillation.

    metric: of both values, on the same held-out data.
    """

    recipe: str
    teacher: str
    metric: str
    teacher_value: float
    student_value: float
    teacher_parameters: int
    student_parameters: int


class Report(Config):
    """The content of a report.

    rows: with accuracies, if known. verifications: by `Row.model.id`.
    baseline: its name, None without one. random_weights: of the baseline.
    """

    title: str
    rows: tuple[Row, ...]
    not_measured: tuple[str, ...] = ()
    verifications: dict[str, Verification] = {}
    baseline: str | None = None
    random_weights: bool = False
    distillation: Distillation | None = None

    @classmethod
    def of(
        cls, result: BenchmarkResult, *, title: str, distillation: Distillation | None = None
    ) -> Report:
        """Return the report of one benchmark; its rows can be replaced by rows with accuracies."""
        return cls(
            title=title,
            rows=result.rows,
            not_measured=result.not_measured,
            verifications=result.verifications,
            baseline=result.baseline,
            random_weights=result.random_weights,
            distillation=distillation,
        )

    def printable(self) -> Report:
        """Return the report with every text on one line and without terminal control characters."""
        return _printable(self)

    @classmethod
    def merged(cls, rows: Sequence[Row], *, title: str | None = None) -> Report:
        """Return the report of rows of several runs, which may be of several machines."""
        baselines = {row.model.id for row in rows if row.role == "baseline"}
        return cls(
            title=title or _title(rows),
            rows=with_current_ratios(rows),
            not_measured=tuple(dict.fromkeys(_untimed(rows))),
            baseline=next(iter(baselines)) if len(baselines) == 1 else None,
        )


def _printable(value: T) -> T:
    cleaned: Any = value
    if isinstance(value, str):
        cleaned = printable(value)
    elif isinstance(value, Config):
        fields = {name: _printable(getattr(value, name)) for name in type(value).model_fields}
        cleaned = value.model_copy(update=fields)
    elif isinstance(value, tuple) and not isinstance(next(iter(value), None), int | float):
        cleaned = tuple(map(_printable, value))
    elif isinstance(value, dict):
        cleaned = {_printable(key): _printable(item) for key, item in value.items()}
    return cleaned


def _title(rows: Sequence[Row]) -> str:
    artifacts = [row for row in rows if row.role == "artifact"]
    names = list(dict.fromkeys(bundle_of(row) for row in artifacts))
    if not names:
        return f"Benchmark results of {join_names(list(dict.fromkeys(r.tool.name for r in rows)))}"
    devices = list(dict.fromkeys(device_of(row) for row in artifacts))
    return f"Benchmark of {join_names(names)} on {join_names(devices)}"


def _untimed(rows: Sequence[Row]) -> Iterator[str]:
    labels = Labels(rows)
    for row in rows:
        if row.validity.status == "not_measured":
            yield f"{labels.full(row)} was not timed: {'; '.join(row.validity.reasons)}."
