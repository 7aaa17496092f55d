"""What the same student learns without a teacher: what a recipe has to beat."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.data.batches import steps_of
from distill.data.datasets import own_texts
from distill.recipe.config import Stage
from distill.training.evaluation import measure
from distill.training.stages import Log, train_stages

if TYPE_CHECKING:
    from distill.prepare import Run
    from distill.training.resume import TrainingState

# How the student starts: as in the run, or with new weights.
STARTS = ("without-teacher", "random")
# What a baseline shares with the stage of the recipe that teaches answers last.
_SHARED = (
    "masking",
    "batch_size",
    "gradient_accumulation",
    "learning_rate",
    "schedule",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "adam_betas",
    "adam_epsilon",
    "early_stopping",
)


class Baselines:
    """The student of a run, before it is trained, to be trained on labels alone.

    Equal to the run are the student's shape, tokenizer and longest text, the labelled rows, the
    seed, the rows seen in all (steps times batch, summed over the recipe's stages), and of its
    last stage that teaches answers the batch, the optimiser, the learning rate with its schedule
    and early stopping. Different are the terms, which are `labels` alone, and the texts, of
    which augmented ones have no labels. Raises ConfigError for a task without labels.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stage = baseline_stage(run)
        self._models = {
            "without-teacher": copy.deepcopy(run.inputs.student.model),
            "random": _with_new_weights(run.inputs.student.model, run.inputs.config.seed),
        }
        run.inputs.learner(self._stage)

    def train(self, state: TrainingState) -> tuple[dict[str, float], Log]:
        """The metric of each by how it started, and their log."""
        judge = self._run.judge
        assert judge is not None
        values: dict[str, float] = {}
        log: Log = []
        for index, start in enumerate(STARTS, len(self._run.recipe.stages)):
            model = self._models[start]
            log += train_stages(self._run_of(start, model), state, first=index).log
            values[start] = measure(judge, model.eval())[1]
        return values, log

    def _run_of(self, start: str, model: Any) -> Run:
        """The run with this student and a single stage."""
        run, stage = self._run, self._stage.model_copy(update={"name": f"baseline-{start}"})
        inputs = replace(run.inputs, student=replace(run.inputs.student, model=model))
        return replace(
            run,
            recipe=run.recipe.model_copy(update={"stages": (stage,)}),
            inputs=inputs,
            texts={stage.name: own_texts(inputs, stage.masking)},
            needs={stage.name: {}},
        )


def baseline_stage(run: Run) -> Stage:
    """Labels alone, for as many rows as all stages of a run see."""
    stages = run.recipe.stages
    rows = sum(
        steps_of(stage, len(run.texts[stage.name].samples)) * _rows_a_step(stage)
        for stage in stages
    )
    last = next((stage for stage in reversed(stages) if stage.teaches_answers), stages[-1])
    shared = {name: getattr(last, name) for name in _SHARED}
    steps = max(1, math.ceil(rows / _rows_a_step(last)))
    return Stage.model_validate(
        {**shared, "name": "baseline", "terms": [{"match": "labels"}], "max_steps": steps}
    )


def _rows_a_step(stage: Stage) -> int:
    return stage.batch_size * stage.gradient_accumulation


def _with_new_weights(model: Any, seed: int) -> Any:
    """A model of the same class and configuration, as if nothing had ever trained it."""
    import transformers

    transformers.set_seed(seed)
    return type(model)(copy.deepcopy(model.config))
