"""The artifacts of a bundle, one format after the other."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Converter, Export, Plan, Request, artifact_path, describe
from converters.config import ConvertConfig
from edge.bundle import Artifact, Bundle, GoldenCase
from edge.checkpoint import Checkpoint, load_model
from edge.console import hush, step
from edge.formats import FORMATS
from edge.precision import Precision
from edge.process.memory import release_memory
from edge.registry import look_up
from edge.tasks.base import Examples

if TYPE_CHECKING:
    from converters.budget import MetricBudget
    from converters.graph import ExportView

# format -> module and class, imported on use.
CONVERTERS = {
    "onnx": "converters.onnx:OnnxConverter",
    "tflite": "converters.tflite:TfliteConverter",
    "coreml": "converters.coreml:CoremlConverter",
}


def get_converter(name: str) -> Converter:
    """The converter of a format."""
    converter: Converter = look_up("format", name, CONVERTERS)()
    return converter


def requests(config: ConvertConfig) -> dict[str, list[Request]]:
    """What to write, by format."""
    found: dict[str, list[Request]] = {}
    for form, target in config.targets():
        wanted = [Request(precision, target.name) for precision in config.precisions(target)]
        found.setdefault(form.name, []).extend(wanted)
    return found


def write_artifacts(
    config: ConvertConfig,
    checkpoint: Checkpoint,
    plan: Plan,
    bundle: Bundle,
    cases: list[GoldenCase],
    *,
    scored: tuple[Examples, tuple[str, float]] | None = None,
) -> list[Artifact]:
    """Write every artifact that `config` asks for into the folder of `bundle`.

    bundle: without artifacts yet. scored: labelled examples and the checkpoint's metric on them,
    for a metric budget. Raises ConversionError, or VerificationError when a budget cannot be kept.
    """
    with hush():
        from converters.graph import ExportView

        # Eager attention exports everywhere; several architectures have nothing else.
        view = ExportView(load_model(checkpoint, attention="eager"), checkpoint.task).eval()
    budget = _budget(config, plan, view, bundle, cases, scored) if scored else None
    sizes = _sizes(checkpoint, cases)
    artifacts = []
    for name, wanted in requests(config).items():
        converter = get_converter(name)
        with tempfile.TemporaryDirectory(dir=bundle.path) as scratch:
            with step(f"export to {FORMATS[name].title}"), hush():
                export = converter.open(view, plan, Path(scratch))
            for request in wanted:
                path = artifact_path(bundle.path, name, request)
                entry = functools.partial(describe, converter, request, path, plan, sizes)
                artifacts.append(_write(export, request, path, entry, budget))
            del export
        release_memory()
    return artifacts


def _write(
    export: Export,
    request: Request,
    path: Path,
    entry: Callable[[], Artifact],
    budget: MetricBudget | None,
) -> Artifact:
    if budget is not None and request.precision is not Precision.FP32:
        return budget.fit(export, request, path, entry)
    with step(f"write {path.name}"), hush():
        kept = export.write(request, path)
    return entry().model_copy(update={"kept_wider": kept})


def _budget(
    config: ConvertConfig,
    plan: Plan,
    view: ExportView,
    bundle: Bundle,
    cases: list[GoldenCase],
    scored: tuple[Examples, tuple[str, float]],
) -> MetricBudget:
    from converters.budget import MetricBudget
    from converters.sensitivity import sensitivities
    from converters.weights import Owners

    owners = Owners(view.model)

    @functools.cache
    def rank(precision: Precision) -> list[str]:
        with step(f"sensitivity of {len(owners.sizes)} layers to {precision.value}"), hush():
            return list(sensitivities(view, owners, precision, plan.calibration))

    assert config.max_drop is not None
    examples, checkpoint = scored
    return MetricBudget(
        bundle, cases, examples, checkpoint, max_drop=config.max_drop, owners=owners, rank=rank
    )


def _sizes(checkpoint: Checkpoint, cases: list[GoldenCase]) -> dict[str, int]:
    """The sizes of symbolic output dimensions, read off the golden vectors."""
    sizes: dict[str, int] = {}
    for name, shape in checkpoint.task.outputs.items():
        for symbol, size in zip(shape[1:], cases[0].outputs[name].shape, strict=False):
            if isinstance(symbol, str) and symbol != "sequence":
                sizes[symbol] = size
    return sizes
