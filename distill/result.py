"""The outcome of a distillation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DistillResult:
    """What a run made. value, teacher_value: the metric on the eval file; None without one.

    train_samples: labelled rows; augmented ones are not counted. baselines: the metric of the same
    student without a teacher, by how it started; see `distill.baselines`. teachers: where there
    are several, each one's; teacher_value is that of the first. assistants: of a chain, in order.
    """

    output: str
    recipe: str
    student: str
    metric: str | None
    value: float | None
    teacher_value: float | None
    parameters: int
    teacher_parameters: int | None
    train_samples: int
    eval_samples: int
    duration_s: float
    baselines: dict[str, float] | None = None
    teachers: list[dict[str, Any]] | None = None
    assistants: list[dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
