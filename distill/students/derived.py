"""Students made of their teacher: fewer layers, narrower, or another architecture."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from distill.losses.layer_map import spread
from distill.recipe.student import StudentSpec
from distill.students.architectures import (
    DISTILBERT,
    as_distilbert,
    embed_alike,
    is_other,
    other_config,
    with_settings,
)
from distill.students.base import Student, Teacher, new_model
from edge.console import hush
from edge.data import Table
from edge.errors import ConfigError, UserError
from edge.models.layers import layer_prefix as stack_prefix
from edge.models.layers import with_layers

if TYPE_CHECKING:
    from distill.students.narrowing import Method

# Layers of a feed-forward block, by architecture.
_INTERMEDIATE = ("intermediate_size", "hidden_dim")


def from_teacher(spec: StudentSpec, teacher: Teacher, table: Table) -> Student:
    """A student of the shape that `spec` asks for; a narrower one is fitted on texts of `table`.

    Raises ConfigError for a shape that cannot be, UserError where the teacher cannot fill it.
    """
    if spec.architecture == DISTILBERT != teacher.model.config.model_type:
        teacher = as_distilbert(teacher, weights=spec.init != "random")
    elif is_other(spec, teacher):
        return _of_architecture(spec, teacher)
    total = teacher.model.config.num_hidden_layers
    layers = _chosen_layers(spec, total)
    config = with_settings(_resized(teacher.model.config, spec, layers), spec.settings)
    with hush():
        model = new_model(replace(teacher.checkpoint, config=config))
    checkpoint = replace(teacher.checkpoint, config=model.config)
    if spec.init == "random":
        return Student(model, teacher.tokenizer, checkpoint)
    if not _is_narrower(config, teacher.model.config):
        _copy_weights(teacher.model, model, layers)
        return Student(model, teacher.tokenizer, checkpoint, copied_layers=layers)
    _narrow(teacher, model, layers, table, "slice" if spec.init == "slice" else "svd")
    return Student(model, teacher.tokenizer, checkpoint)


def _of_architecture(spec: StudentSpec, teacher: Teacher) -> Student:
    """A student of another kind: random, but for embeddings and what has the same name and form."""
    if spec.init in ("slice", "svd"):
        raise ConfigError(
            f"init={spec.init} makes a teacher of the same architecture narrower: for "
            f"architecture={spec.architecture} use init=teacher or init=random"
        )
    checkpoint = replace(teacher.checkpoint, config=other_config(spec, teacher))
    with hush():
        model = new_model(checkpoint)
    if spec.init == "teacher":
        _copy_outside_layers(teacher.model, model)
        embed_alike(model, teacher.model)
    return Student(model, teacher.tokenizer, replace(checkpoint, config=model.config))


def _is_narrower(ours: Any, theirs: Any) -> bool:
    """Whether weights have other shapes than the teacher's."""
    names = ("hidden_size", "embedding_size", *_INTERMEDIATE)
    return any(getattr(ours, name, None) != getattr(theirs, name, None) for name in names)


def _narrow(
    teacher: Teacher, student: Any, layers: tuple[int, ...], table: Table, method: Method
) -> None:
    from distill.students.calibration import calibration_batches
    from distill.students.narrowing import narrow
    from edge.checkpoint import max_length

    names = {
        name: _renumbered(name, teacher.model, layers)
        for name, module in student.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    limit = max_length(teacher.checkpoint, teacher.tokenizer)
    batches = calibration_batches(table, teacher.tokenizer, limit)
    narrow(teacher.model, student, names, batches, method)


def _chosen_layers(spec: StudentSpec, total: int) -> tuple[int, ...]:
    layers = spec.layers
    if layers is None:
        return tuple(range(total))
    if isinstance(layers, tuple):
        for index in layers:
            if not 0 <= index < total:
                raise ConfigError(
                    f"student layer {index} does not exist: the teacher has layers 0 to {total - 1}"
                )
        return layers
    if isinstance(layers, str):
        return spread(max(1, round(Fraction(layers) * total)), total)
    if layers > total and spec.init == "random":
        return tuple(range(layers))
    if layers > total:
        raise ConfigError(
            f"layers={layers}: the teacher has {total} layers; ask for at most {total}, "
            "or add init=random"
        )
    return spread(layers, total)


def _resized(config: Any, spec: StudentSpec, layers: tuple[int, ...]) -> Any:
    """The teacher's configuration with the student's depth and width."""
    config = with_layers(config, layers)
    name = next((name for name in _INTERMEDIATE if hasattr(config, name)), None)
    old_hidden, old_heads = config.hidden_size, config.num_attention_heads
    hidden = spec.hidden or old_hidden
    heads = spec.heads or (max(1, hidden * old_heads // old_hidden) if spec.hidden else old_heads)
    if hidden % heads:
        raise ConfigError(
            f"hidden={hidden} cannot be split into {heads} heads: "
            f"choose a multiple of {heads}, or other heads=N"
        )
    config.hidden_size, config.num_attention_heads = hidden, heads
    _set_embedding(config, spec.embedding, old_hidden)
    if name is not None:
        wide = spec.intermediate or getattr(config, name) * hidden // old_hidden
        setattr(config, name, wide)
    return config


def _set_embedding(config: Any, embedding: int | None, old_hidden: int) -> None:
    """The width of word embeddings, where it is one of its own; by default it follows `hidden`."""
    hidden, old = config.hidden_size, getattr(config, "embedding_size", None)
    if old is None and embedding is not None:
        raise ConfigError(
            f"embedding={embedding}: {config.model_type} reads its word embeddings at full width: "
            "leave it out, or name an architecture that widens them"
        )
    if old is None:
        return
    config.embedding_size = embedding or max(1, old * hidden // old_hidden)
    if (config.embedding_size == hidden) != (old == old_hidden):
        raise ConfigError(
            f"embedding={config.embedding_size} of hidden={hidden}: the teacher's are {old} of "
            f"{old_hidden}, and only where both or neither are alike does it have what widens them"
        )


def _copy_weights(teacher: Any, student: Any, layers: tuple[int, ...]) -> None:
    """Give the student its teacher's weights, layers renumbered."""
    source = teacher.state_dict()
    found = {
        name: source[_renumbered(name, teacher, layers)].detach().clone()
        for name in student.state_dict()
    }
    student.load_state_dict(found)


def _copy_outside_layers(teacher: Any, student: Any) -> None:
    """Give a student of another shape whatever has the same name, kind and shape as there."""
    source = dict(teacher.named_modules())
    found = {
        f"{name}.{key}": value.detach().clone()
        for name, module in student.named_modules()
        if not re.search(r"\.\d+(\.|$)", name) and type(source.get(name)) is type(module)
        for key, value in teacher.get_submodule(name).named_parameters(recurse=False)
        if getattr(module, key).shape == value.shape
    }
    student.load_state_dict(found, strict=False)


def _renumbered(name: str, teacher: Any, layers: tuple[int, ...]) -> str:
    """What a student's module or weight is called in its teacher."""
    if layers == tuple(range(teacher.config.num_hidden_layers)):
        return name
    prefix = layer_prefix(teacher)
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)(?=\.|$)")
    return pattern.sub(lambda match: f"{prefix}.{layers[int(match[1])]}", name)


def layer_prefix(model: Any) -> str:
    """The name of the list of layers; raises UserError where there is none."""
    found = stack_prefix(model)
    if found is None:
        raise UserError(
            f"{model.config.model_type} keeps no list of its {model.config.num_hidden_layers} "
            "layers, so they cannot be skipped: give --student a checkpoint folder, a config.json, "
            "or init=random"
        )
    return found
