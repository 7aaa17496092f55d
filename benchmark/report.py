"""What a report shows."""

from __future__ import annotations

from benchmark.run import BenchmarkResult
from benchmark.schema import Row
from edge.bundle import Verification
from edge.config import Config


class Distillation(Config):
    """What distillation did, for the report.

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
    """Everything a report shows.

    rows: accuracy filled in where it is known. verifications: by `Row.model.id`.
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
        """The report of one benchmark; rows with accuracies can replace its own afterwards."""
        return cls(
            title=title,
            rows=result.rows,
            not_measured=result.not_measured,
            verifications=result.verifications,
            baseline=result.baseline,
            random_weights=result.random_weights,
            distillation=distillation,
        )
