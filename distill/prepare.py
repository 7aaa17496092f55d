"""Everything a run needs, opened and checked before its first step."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill.data.datasets import Texts, texts_of
from distill.inputs import Inputs
from distill.opening import open_inputs
from distill.recipe.config import DEFAULT_RECIPE, DistillConfig, Recipe, Stage
from distill.recipe.terms import Name
from edge.data import Table
from edge.provenance import Description, describe, versions
from edge.tasks.summary import say_understood

if TYPE_CHECKING:
    from distill.signals.capture import Needs, Source
    from distill.training.evaluation import Judge


@dataclass(frozen=True)
class Run:
    """texts, needs: by stage, what it trains on and what teachers say beside answers, by name."""

    recipe: Recipe
    inputs: Inputs
    texts: dict[str, Texts]
    needs: dict[str, dict[Name, Needs]]
    judge: Judge | None
    fingerprint: dict[str, Any]

    @property
    def teacher_judge(self) -> Judge | None:
        """Measures teachers, in their own tokens."""
        return self.inputs.judge(self.inputs.teacher) if self.inputs.own_words else self.judge

    def sources(self, stage: Stage) -> dict[Name, Source]:
        """Who answers for each teacher in a stage; a cache is filled first if it is not there."""
        return {name: self._source(stage, name) for name in self.needs[stage.name]}

    def _source(self, stage: Stage, name: Name) -> Source:
        from distill.teachers import cached_teacher, identify
        from distill.teachers.sharding import live_teacher

        teacher, config = self.inputs.named_teachers[name], self.inputs.config
        texts, needs = self.texts[stage.name], self.needs[stage.name][name]
        if config.teacher_cache is None:
            return live_teacher(teacher.model, needs)
        table = texts.table
        if stage.translations:
            table = replace(table, pairs=table.texts)
        identity = identify(teacher, table, max_length=self.inputs.max_length, bf16=config.bf16)
        # Several teachers have a folder each; stages that train on the same texts share it.
        own = f"-{identity.teacher[:16]}" if len(self.inputs.teachers) > 1 else ""
        alike = (
            self.needs[stage_name].get(name, frozenset())
            for stage_name, other in self.texts.items()
            if other is texts
        )
        return cached_teacher(
            config.teacher_cache / f"{identity.data[:16]}{own}",
            teacher,
            texts.samples.read_by(name),
            needs,
            identity=identity,
            keep=needs.union(*alike),
        )


def prepare(config: DistillConfig, recipe: Recipe, *, like: Run | None = None) -> Run:
    """Open and check every input; nothing is written but augmented texts, to their folder.

    like: another run on the same data, whose texts are taken where both read them alike.
    Raises UserError for what does not fit together, of every stage; the links of a chain are
    checked one by one, as its student does not follow the run's own teacher.
    """
    inputs = open_inputs(config, recipe)
    table, held_out = inputs.table, inputs.held_out
    inputs.training.check_teachers(table, recipe.stages, inputs.named_teachers)
    judge = inputs.judge()
    needs = {}
    if not recipe.assistants:
        needs = {stage.name: inputs.learner(stage).asked for stage in recipe.stages}
    alike = like and like.recipe.stages == recipe.stages and like.inputs.words == inputs.words
    texts = like.texts if like and alike else texts_of(inputs, recipe, tell=like is None)
    if judge and held_out and like is None:
        encodings, task = judge.examples.encodings, inputs.student.task
        say_understood(task, held_out, encodings, max_length=inputs.max_length)
    fingerprint = {
        "config": _settings(config),
        "recipe": describe(recipe),
        "teacher": _one_or_several([one.checkpoint.weights_sha256 for one in inputs.teachers]),
        "student": _hash_weights(inputs.student.model),
        "train": _hash(table),
        "eval": _hash(held_out) if held_out else None,
        "augmented": {s.name: _hash(texts[s.name].table) for s in recipe.stages if s.augment},
        "versions": versions("distill"),
    }
    return Run(recipe, inputs, texts, needs, judge, fingerprint)


def _settings(config: DistillConfig) -> Description:
    """What of a configuration must be the same where an interrupted run is continued."""
    # Baselines may be asked for later; the recipe counts as it runs, not as its file says.
    found = describe(config.model_copy(update={"baselines": False, "recipe": DEFAULT_RECIPE}))
    return {name: value for name, value in found.items() if name != "recipe"}


def _one_or_several(hashes: list[str]) -> list[str] | str | None:
    return hashes if len(hashes) > 1 else next(iter(hashes), None)


def _hash(table: Table) -> str:
    rows = [table.texts, table.pairs, table.targets, table.words]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
