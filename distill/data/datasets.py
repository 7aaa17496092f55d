"""What the stages of a run train on: the data file's rows, others, and who reads them how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.augment import augment, mix, targets_of
from distill.recipe.config import Recipe, Stage
from distill.recipe.terms import Name
from distill.recipe.tokens import Masking
from distill.students import EMBEDS
from edge.data import Table
from edge.errors import ConfigError
from edge.storage import cache_folder
from edge.tasks.fill_mask import FillMask
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
        _check_terms(inputs, stage, made[key])
    return {stage.name: made[_reads(stage)] for stage in recipe.stages}


def _reads(stage: Stage) -> Any:
    """What stages that train on the same texts have in common."""
    views = tuple(stage.views.items())
    return stage.augment, stage.masking, stage.mixing, stage.questions, stage.translations, views


def _check_terms(inputs: Inputs, stage: Stage, texts: Texts) -> None:
    from distill.tasks.embeddings import check_stage

    if inputs.student.task.name == EMBEDS:
        check_stage(stage, texts.table, texts.samples)


def _views(inputs: Inputs, texts: Texts, stage: Stage) -> dict[Name, View]:
    """What others than the student read of the rows, by name."""
    from distill.data.views import companion_views

    table, samples = texts.table, texts.samples
    targets = np.asarray(samples.targets) if stage.views else np.empty(0)
    views = companion_views(samples.own, targets, stage.views, seed=inputs.config.seed)
    if inputs.student.task.name == EMBEDS:
        from distill.tasks.embeddings import teacher_views

        return views | teacher_views(
            table,
            inputs.named_teachers,
            inputs.max_length,
            own_words=inputs.own_words,
            translations=stage.translations,
        )
    return views | _in_own_words(inputs, table)


def _in_own_words(inputs: Inputs, table: Table) -> dict[Name, View]:
    """The rows in the teachers' tokens, where the student has others."""
    from distill.data.views import View

    # Of masked tokens a teacher that has others can say nothing.
    if not inputs.own_words or inputs.student.task.name == FillMask.name:
        return {}
    tokenizer = inputs.tokenizer(inputs.teachers[0])
    encodings = tokenizer.encode(table.texts, table.pairs, max_length=inputs.max_length)
    return dict.fromkeys(inputs.named_teachers, View(encodings, tokenizer))


def own_texts(inputs: Inputs, masking: Masking | None, stage: Stage | None = None) -> Texts:
    """The rows of the data file, checked; arranged in questions where `stage` compares those."""
    from distill.data.encoding import check_variety, samples_of
    from distill.tasks.embeddings import arranged

    task, table, config = inputs.student.task, inputs.table, inputs.config
    if stage is not None:
        table = arranged(table, stage, config.seed)
    if config.teacher_cache is not None and task.name == FillMask.name:
        raise ConfigError(
            "other tokens are hidden in every epoch, so the teacher has to be asked each time: "
            "leave out --teacher-cache"
        )
    samples = samples_of(
        task,
        table,
        inputs.tokenizer(),
        max_length=inputs.max_length,
        masking=masking,
        seed=config.seed,
        mixer=_mixer(inputs, stage) if stage is not None else None,
    )
    bare = table.targets is None or None in table.targets
    if not bare or stage is None or stage.reads_labels:
        check_variety(task, table, samples.targets)
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
    from distill.data.batches import Samples
    from distill.data.encoding import read_texts

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
    tokenizer = inputs.tokenizer()
    if task.name == EMBEDS:
        from distill.tasks.sentences import sentence_samples

        sentences = sentence_samples(task, mixed, tokenizer, max_length=inputs.max_length)
        return Texts(mixed, sentences)
    encodings = read_texts(mixed, tokenizer, inputs.max_length, _mixer(inputs, stage))
    return Texts(mixed, Samples(encodings, targets_of(task, mixed, needed=False), tokenizer))
