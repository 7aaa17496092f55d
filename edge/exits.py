"""Early exits of a checkpoint: accuracy by depth and by threshold, and models cut at an exit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.checkpoint import Checkpoint, load_tokenizer, save_checkpoint
from edge.config import Config
from edge.console import counted, hush, step
from edge.data import Table
from edge.reference import Reference
from edge.storage import check_target, output_lock, staged_folder
from edge.tasks import Outputs
from edge.tasks.base import Examples
from edge.tasks.summary import say_understood

if TYPE_CHECKING:
    from edge.models.exits import EarlyExit

# Uncertainty thresholds, from almost no early exits to almost all texts exiting early.
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
CUT_FILE = "cut.json"


class DepthScore(Config):
    """The metric when every text exits after `layer`, as in the model cut at that layer."""

    layer: int
    value: float


class ThresholdScore(Config):
    """The metric when a text exits at the first layer where its uncertainty is below `threshold`.

    mean_layers: mean number of layers run per text. times_fewer: number of all layers divided by
    mean_layers. left_after: share of texts that exit after each layer.
    """

    threshold: float
    value: float
    mean_layers: float
    times_fewer: float
    left_after: dict[int, float]


class ExitReport(Config):
    """Scores of a checkpoint's exits on `samples` rows of a data file; higher is better."""

    metric: str
    samples: int
    depths: tuple[DepthScore, ...]
    thresholds: tuple[ThresholdScore, ...]


def measure_exits(
    checkpoint: Checkpoint,
    table: Table,
    *,
    max_length: int,
    thresholds: Sequence[float] = (),
) -> ExitReport:
    """Measure the metric by depth, and metric and mean depth by threshold, at batch size 1.

    thresholds: in addition to the checkpoint's own; by default THRESHOLDS.
    max_length: in tokens. Raises CheckpointError for a checkpoint without exits, DataError when
    the table does not fit.
    """
    from edge.models.exits import load_early_exit

    with step(f"exits of {checkpoint.source} on {counted(len(table), 'row')}"), hush():
        model = load_early_exit(checkpoint)
        reference = Reference(checkpoint, model.model)
        examples = checkpoint.task.examples(table, reference.tokenizer, max_length=max_length)
        say_understood(checkpoint.task, table, examples.encodings, max_length=max_length)
        runs = _run_all_depths(model, examples, reference)
    chosen = sorted({*(thresholds or THRESHOLDS), model.threshold})
    layers = (*model.exit_layers, model.config.num_hidden_layers)
    scored = [_main_metric(examples, [run.outputs[i] for run in runs]) for i in range(len(layers))]
    return ExitReport(
        metric=scored[0][0],
        samples=len(table),
        depths=tuple(
            DepthScore(layer=layer, value=value)
            for layer, (_, value) in zip(layers, scored, strict=True)
        ),
        thresholds=tuple(_score_at(examples, runs, layers, threshold) for threshold in chosen),
    )


def cut_exit(checkpoint: Checkpoint, layer: int, output: Path) -> None:
    """Write the plain checkpoint that ends at the exit after `layer`, counted from 1.

    Transformers loads it and `edge convert` converts it like any other. Raises UserError for a
    layer without an exit, CheckpointError for a checkpoint without any.
    """
    from edge.models.exits import load_cut

    with output_lock(output), step(f"cutting {checkpoint.source} after layer {layer}"), hush():
        check_target(output, replaces=is_cut)
        model = load_cut(checkpoint, layer)
        with staged_folder(output, replaces=is_cut) as folder:
            save_checkpoint(model, load_tokenizer(checkpoint), folder)
            record = {"cut_from": checkpoint.source, "layer": layer}
            (folder / CUT_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def is_cut(path: Path) -> bool:
    """Return True if a folder was written by `cut_exit`."""
    return (path / CUT_FILE).is_file()


@dataclass(frozen=True)
class _Run:
    """The outputs and uncertainties of one encoding at every depth, shallow first."""

    outputs: list[Outputs]
    uncertainties: list[float]

    def exit(self, threshold: float) -> int:
        """Return the index of the first depth with uncertainty below `threshold`, or the last."""
        certain = (i for i, value in enumerate(self.uncertainties[:-1]) if value < threshold)
        return next(certain, len(self.uncertainties) - 1)


def _run_all_depths(model: EarlyExit, examples: Examples, reference: Reference) -> list[_Run]:
    import torch

    runs = []
    for encoding in examples.encodings:
        columns = reference.tokenizer.pad([encoding], len(encoding))
        inputs = {name: torch.from_numpy(column).long() for name, column in columns.items()}
        with torch.inference_mode():
            depths = model.depths(**inputs)
        arrays: list[dict[str, Any]] = [
            {name: value.numpy() for name, value in outputs.items()} for outputs, _ in depths
        ]
        trimmed = [model.task.trim(outputs, 0, len(encoding)) for outputs in arrays]
        runs.append(_Run(trimmed, [float(uncertainty) for _, uncertainty in depths]))
    return runs


def _score_at(
    examples: Examples, runs: Sequence[_Run], layers: Sequence[int], threshold: float
) -> ThresholdScore:
    exits = np.asarray([run.exit(threshold) for run in runs])
    outputs = [run.outputs[index] for run, index in zip(runs, exits, strict=True)]
    mean = float(np.asarray(layers)[exits].mean())
    return ThresholdScore(
        threshold=threshold,
        value=_main_metric(examples, outputs)[1],
        mean_layers=mean,
        times_fewer=layers[-1] / mean,
        left_after={layer: float((exits == i).mean()) for i, layer in enumerate(layers)},
    )


def _main_metric(examples: Examples, outputs: list[Outputs]) -> tuple[str, float]:
    return next(iter(examples.score(outputs).items()))
