"""What every converter gets and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from edge.bundle import Artifact, KeptWider
from edge.formats import FORMATS, variant
from edge.precision import Precision
from edge.signature import TensorSpec, input_specs
from edge.storage import sha256, size_bytes
from edge.tasks import Task

if TYPE_CHECKING:
    from converters.graph import ExportView

Inputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """What one conversion is of.

    inputs: names. lengths: ascending, in tokens. flexible: whether Core ML accepts every length
    or just `lengths`. calibration: model inputs, int32 (1, n) without padding, of texts like
    those the app will see.
    """

    task: Task
    inputs: tuple[str, ...]
    lengths: tuple[int, ...]
    flexible: bool = True
    calibration: tuple[Inputs, ...] = ()

    @property
    def max_length(self) -> int:
        return self.lengths[-1]


@dataclass(frozen=True)
class Request:
    """One artifact to write.

    target: what it must run on, a name of `edge.formats`. wider: modules of the checkpoint whose
    weights stay at another precision, by name.
    """

    precision: Precision
    target: str
    wider: Mapping[str, Precision] = field(default_factory=dict)

    def width(self, module: str) -> Precision:
        """The precision of one module's weights."""
        return self.wider.get(module, self.precision)


class Export(Protocol):
    """A checkpoint exported to one format in full precision, from which artifacts are written."""

    def write(self, request: Request, path: Path) -> tuple[KeptWider, ...]:
        """Write one artifact; returns what the converter itself kept wider, and why it had to.

        May be called again with the same path. Raises ConversionError.
        """
        ...


class Converter(Protocol):
    """Opens exports of one format."""

    format: str

    def open(self, view: ExportView, plan: Plan, scratch: Path) -> Export:
        """Export a checkpoint, with temporary files in `scratch`; raises ConversionError."""
        ...

    def dynamic(self, plan: Plan) -> bool:
        """Whether artifacts accept every length up to the largest of the plan."""
        ...


def describe(
    converter: Converter, request: Request, path: Path, plan: Plan, sizes: dict[str, int]
) -> Artifact:
    """The manifest entry of a written file, not yet verified."""
    dynamic = converter.dynamic(plan)
    return Artifact(
        format=converter.format,
        target=request.target,
        precision=request.precision.value,
        file=path.name,
        bytes=size_bytes(path),
        sha256=sha256(path),
        inputs=input_specs(plan.inputs),
        outputs=_output_specs(plan.task, sizes),
        sequence_lengths=(plan.max_length,) if dynamic else plan.lengths,
        dynamic_sequence=dynamic,
    )


def artifact_path(folder: Path, format_name: str, request: Request) -> Path:
    """Where an artifact goes: model-<precision>[-<target>]<suffix>."""
    name = variant(format_name, request.target, request.precision.value)
    return folder / f"model-{name}{FORMATS[format_name].suffix}"


def _output_specs(task: Task, sizes: dict[str, int]) -> tuple[TensorSpec, ...]:
    def dimension(value: str | int) -> str | int:
        return sizes.get(value, value) if isinstance(value, str) else value

    return tuple(
        TensorSpec(name=name, dtype="float32", shape=tuple(dimension(d) for d in shape))
        for name, shape in task.outputs.items()
    )
