"""What the stages of a run train on: the data file's rows, others, and who reads them how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.augment import augment, mix
from distill.data.questions import in_questions
from distill.recipe.config import Recipe, Stage
from distill.recipe.terms import Name
from distill.recipe.tokens import Masking
from edge.data import Table
from edge.errors import ConfigError
from edge.storage import cache_folder
from edge.tasks.summary import say_understood

if TYPE_CHECKING:
    from distill.data.batches import Samples
    from distill.data.mixing import Mixer
    from distill.data.views import View
    from distill.inputs import Inputs


@dataclass(frozen=True)
class Texts:
    """What a stage trains on: the labelled rows, then those of its augmentations."""

    table: Table
    samples: Samples


def texts_of(inputs: Inputs, recipe: Recipe, *, tell: bool = True) -> dict[str, Texts]:
    """By stage, what it trains on; stages that read alike share it.

    tell: say in a line what was understood of the data file.
    """
    made: dict[Any, Texts] = {}
    for stage in recipe.stages:
        key = _reads(stage)
        if key not in made:
            own = own_texts(inputs, stage.masking, stage)
            if tell and not made:
                task, length = inputs.student.task, inputs.max_length
                say_understood(task, inputs.table, own.samples.encodings, max_length=length)
            texts = made[key] = _augmented(inputs, stage) if stage.augment else own
            texts.samples.views.update(_views(inputs, texts, stage))
        inputs.training.check_stage(stage, made[key].table, made[key].samples)
    return {stage.name: made[_reads(stage)] for stage in recipe.stages}


def _reads(stage: Stage) -> Any:
    """What stages that train on the same texts have in common."""
    views = tuple(stage.views.items())
    return stage.augment, stage.masking, stage.mixing, stage.questions, stage.translations, views


def _views(inputs: Inputs, texts: Texts, stage: Stage) -> dict[Name, View]:
    """What others than the student read of the rows, by name."""
    from distill.data.views import companion_views

    table, samples = texts.table, texts.samples
    targets = np.asarray(samples.targets) if stage.views else np.empty(0)
    views = companion_views(samples.own, targets, stage.views, seed=inputs.config.seed)
    return views | inputs.training.views(
        table,
        inputs.named_teachers,
        inputs.max_length,
        own_words=inputs.own_words,
        translations=stage.translations,
    )


def own_texts(inputs: Inputs, masking: Masking | None, stage: Stage | None = None) -> Texts:
    """The rows of the data file, checked; arranged in questions where `stage` compares those."""
    table, config, training = inputs.table, inputs.config, inputs.training
    if stage is not None and stage.questions is not None:
        candidates, negatives = stage.questions
        table = in_questions(table, candidates, negatives=negatives, seed=config.seed)
    if config.teacher_cache is not None and training.masks_tokens:
        raise ConfigError(
            "other tokens are hidden in every epoch, so the teacher has to be asked each time: "
            "leave out --teacher-cache"
        )
    samples = training.samples(
        inputs.student.task,
        table,
        inputs.tokenizer(),
        max_length=inputs.max_length,
        masking=masking,
        seed=config.seed,
        mixer=_mixer(inputs, stage) if stage is not None else None,
    )
    bare = table.targets is None or None in table.targets
    if not bare or stage is None or stage.reads_labels:
        training.check_targets(table, samples.targets)
    if stage is not None and stage.questions is not None:
        samples.block = stage.questions[0]
    return Texts(table, samples)


def _mixer(inputs: Inputs, stage: Stage) -> Mixer | None:
    """Who reads the words of a stage's texts in two vocabularies, where it mixes them."""
    from distill.data.mixing import Mixer

    if stage.mixing is None:
        return None
    own, other = inputs.tokenizer(), inputs.tokenizer(inputs.teacher)
    return Mixer(own, other, stage.mixing.share, inputs.config.seed)


def _augmented(inputs: Inputs, stage: Stage) -> Texts:
    """The labelled rows and new ones; no row of the evaluation is among them."""
    task, teacher, table = inputs.student.task, inputs.teacher, inputs.table
    assert teacher is not None
    extra = [
        augment(
            table,
            method,
            task=task,
            teacher=teacher,
            folder=inputs.config.augment_folder or cache_folder() / "texts",
            exclude=[inputs.held_out] if inputs.held_out else [],
        )
        for method in stage.augment
    ]
    mixed = mix(table, *extra)
    samples = inputs.training.samples(
        task,
        mixed,
        inputs.tokenizer(),
        max_length=inputs.max_length,
        mixer=_mixer(inputs, stage),
    )
    return Texts(mixed, samples)
