"""What every converter gets and gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge.bundle import Artifact
from edge.formats import FORMATS
from edge.precision import Precision
from edge.signature import TensorSpec, input_specs
from edge.storage import sha256, size_bytes
from edge.tasks import Task

if TYPE_CHECKING:
    from converters.graph import ExportView


@dataclass(frozen=True)
class Plan:
    """What to write. inputs: names. lengths: ascending, in tokens."""

    task: Task
    inputs: tuple[str, ...]
    lengths: tuple[int, ...]
    precisions: tuple[Precision, ...]

    @property
    def max_length(self) -> int:
        return self.lengths[-1]


class Converter(Protocol):
    """Writes one format. Dynamic: accepts every length up to the largest of the plan."""

    format: str
    dynamic: bool

    def write(self, view: ExportView, plan: Plan, folder: Path) -> dict[Precision, Path]:
        """Write one file for each precision of the plan; raises ConversionError."""
        ...


def describe(
    converter: Converter, files: dict[Precision, Path], plan: Plan, hidden: dict[str, int]
) -> list[Artifact]:
    """The manifest entries of written files, not yet verified."""
    lengths = (plan.max_length,) if converter.dynamic else plan.lengths
    return [
        Artifact(
            format=converter.format,
            precision=precision.value,
            file=path.name,
            bytes=size_bytes(path),
            sha256=sha256(path),
            inputs=input_specs(plan.inputs),
            outputs=_output_specs(plan.task, hidden),
            sequence_lengths=lengths,
            dynamic_sequence=converter.dynamic,
        )
        for precision, path in files.items()
    ]


def artifact_path(folder: Path, format_name: str, precision: Precision) -> Path:
    """Where an artifact goes: model-<precision><suffix>."""
    return folder / f"model-{precision.value}{FORMATS[format_name].suffix}"


def _output_specs(task: Task, sizes: dict[str, int]) -> tuple[TensorSpec, ...]:
    def dimension(value: str | int) -> str | int:
        return sizes.get(value, value) if isinstance(value, str) else value

    return tuple(
        TensorSpec(name=name, dtype="float32", shape=tuple(dimension(d) for d in shape))
        for name, shape in task.outputs.items()
    )
