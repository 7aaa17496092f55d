"""What a checkpoint with exits gives: accuracy by depth and by threshold, and plain cut models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.checkpoint.checkpoint import Checkpoint, load_tokenizer, save_checkpoint
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

# From certain in almost nothing to certain in everything.
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
CUT_FILE = "cut.json"


class DepthScore(Config):
    """The metric when every text leaves after `layer`: that of the model that is cut there."""

    layer: int
    value: float


class ThresholdScore(Config):
    """The metric when texts leave where their uncertainty is below `threshold`.

    mean_layers: how many layers a text takes. times_fewer: all layers over those. left_after: the
    share of texts that each layer's exit answers.
    """

    threshold: float
    value: float
    mean_layers: float
    times_fewer: float
    left_after: dict[int, float]


class ExitReport(Config):
    """A checkpoint's exits on `samples` rows of a data file; more of the metric is better."""

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
    """Metric by depth, and metric and mean depth by threshold; each text runs once, alone.

    thresholds: besides the checkpoint's own; by default THRESHOLDS.
    max_length: in tokens. Raises CheckpointError for a checkpoint without exits, DataError when
    the table does not fit.
    """
    from edge.models.exits import load_early_exit

    with step(f"exits of {checkpoint.source} on {counted(len(table), 'row')}"), hush():
        model = load_early_exit(checkpoint)
        reference = Reference(checkpoint, model.model)
        examples = checkpoint.task.examples(table, reference.tokenizer, max_length=max_length)
        say_understood(checkpoint.task, table, examples.encodings, max_length=max_length)
        runs = _run(model, examples, reference)
    chosen = sorted({*(thresholds or THRESHOLDS), model.threshold})
    layers = (*model.exit_layers, model.config.num_hidden_layers)
    scored = [_scored(examples, [run.answers[i] for run in runs]) for i in range(len(layers))]
    return ExitReport(
        metric=scored[0][0],
        samples=len(table),
        depths=tuple(
            DepthScore(layer=layer, value=value)
            for layer, (_, value) in zip(layers, scored, strict=True)
        ),
        thresholds=tuple(_at(examples, runs, layers, threshold) for threshold in chosen),
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
    """Whether a folder was written by `cut_exit`."""
    return (path / CUT_FILE).is_file()


@dataclass(frozen=True)
class _Run:
    """What one encoding gave at every depth, shallow first."""

    answers: list[Outputs]
    doubts: list[float]

    def exit(self, threshold: float) -> int:
        """The index of the first depth that is certain enough; the last one always is."""
        certain = (i for i, doubt in enumerate(self.doubts[:-1]) if doubt < threshold)
        return next(certain, len(self.doubts) - 1)


def _run(model: EarlyExit, examples: Examples, reference: Reference) -> list[_Run]:
    import torch

    runs = []
    for encoding in examples.encodings:
        columns = reference.tokenizer.pad([encoding], len(encoding))
        inputs = {name: torch.from_numpy(column).long() for name, column in columns.items()}
        with torch.inference_mode():
            depths = model.depths(**inputs)
        arrays: list[dict[str, Any]] = [
            {name: value.numpy() for name, value in answers.items()} for answers, _ in depths
        ]
        answers = [model.task.trim(one, 0, len(encoding)) for one in arrays]
        runs.append(_Run(answers, [float(doubt) for _, doubt in depths]))
    return runs


def _at(
    examples: Examples, runs: Sequence[_Run], layers: Sequence[int], threshold: float
) -> ThresholdScore:
    taken = np.asarray([run.exit(threshold) for run in runs])
    answers = [run.answers[index] for run, index in zip(runs, taken, strict=True)]
    mean = float(np.asarray(layers)[taken].mean())
    return ThresholdScore(
        threshold=threshold,
        value=_scored(examples, answers)[1],
        mean_layers=mean,
        times_fewer=layers[-1] / mean,
        left_after={layer: float((taken == i).mean()) for i, layer in enumerate(layers)},
    )


def _scored(examples: Examples, answers: list[Outputs]) -> tuple[str, float]:
    return next(iter(examples.score(answers).items()))
