"""Students of files: a checkpoint with its weights, or a configuration."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.students.base import Student, Teacher, new_model
from distill.tasks import task_training
from edge.checkpoint import Checkpoint, load_tokenizer, open_checkpoint
from edge.console import hush
from edge.data import Table
from edge.data.classes import classes_of
from edge.errors import CheckpointError
from edge.models.activation import read_activation, take_activation
from edge.models.labels import read_labels
from edge.settings import read_object
from edge.tasks import get_task


def from_source(
    source: str,
    teacher: Teacher | None,
    table: Table,
    *,
    task: str,
    allow_pickle: bool,
    trust_remote_code: bool,
) -> Student:
    """A student that a folder, a file or a hub id describes, with the teacher's labels.

    Raises CheckpointError when it cannot be used, or disagrees with the teacher.
    """
    path = Path(source)
    folder = path.parent if path.is_file() else path
    config_only = path.is_file() or (
        folder.is_dir() and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin"))
    )
    if config_only:
        checkpoint = _config_checkpoint(path, folder, task, trust_remote_code=trust_remote_code)
        # A shape without words of its own reads the teacher's.
        words = checkpoint if (folder / "tokenizer_config.json").is_file() else None
    else:
        checkpoint = open_checkpoint(
            source, task=task, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
        words = checkpoint
    if words is None and teacher is None:
        raise CheckpointError(
            f"{source} has no tokenizer: save one beside it with tokenizer.save_pretrained()"
        )
    tokenizer = load_tokenizer(words) if words else teacher.tokenizer  # type: ignore[union-attr]
    checkpoint = _with_labels(checkpoint, teacher, table, has_weights=not config_only)
    if teacher is not None and tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise CheckpointError(
            f"student {source} and teacher {teacher.checkpoint.source} have different "
            "vocabularies: a student must read the teacher's tokens"
        )
    with hush():
        model = new_model(checkpoint) if config_only else _load_encoder(checkpoint)
    return Student(model, tokenizer, checkpoint)


def _config_checkpoint(
    path: Path, folder: Path, task: str, *, trust_remote_code: bool
) -> Checkpoint:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # Transformers raises many classes here, all about this file
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"student {path} is not a model configuration: {reason}") from None
    named, activation = None, None
    if task_training(task).names_classes:
        values = read_object(path if path.is_file() else path / "config.json")
        config.id2label = read_labels(values, where=str(path)) or config.id2label
        named = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        activation = read_activation(values, where=str(path))
    found = get_task(task, labels=named, problem_type=config.problem_type, activation=activation)
    return Checkpoint(str(path), folder, config, found, trust_remote_code=trust_remote_code)


def _with_labels(
    checkpoint: Checkpoint, teacher: Teacher | None, table: Table, *, has_weights: bool
) -> Checkpoint:
    """The checkpoint with the teacher's labels, its own, or else those of the data."""
    config = copy.deepcopy(checkpoint.config)
    training = task_training(checkpoint.task.name)
    if training.label_count is not None:
        config.num_labels = training.label_count
        return replace(checkpoint, config=config)
    if not training.names_classes:
        return checkpoint  # nothing to name
    own = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    named = any(name != f"LABEL_{i}" for i, name in enumerate(own))
    problem = config.problem_type
    if teacher is not None:
        labels = teacher.checkpoint.labels or ()
        problem = teacher.checkpoint.task.problem_type
        if has_weights and named and own != labels:
            raise CheckpointError(
                f"student {checkpoint.source} answers {', '.join(own)} and the teacher "
                f"{', '.join(labels)}: their labels must be the same, in the same order"
            )
    elif named or len(own) == 1 or problem is not None:
        labels = own
    else:
        classes = classes_of(table)
        labels, problem = classes.labels, classes.problem_type
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    if teacher is not None:
        take_activation(config, teacher.checkpoint.config)
    activation = read_activation(vars(config), where=checkpoint.source)
    task = get_task(
        checkpoint.task.name, labels=labels, problem_type=problem, activation=activation
    )
    config.problem_type = task.problem_type
    return replace(checkpoint, config=config, task=task)


def _load_encoder(checkpoint: Checkpoint) -> Any:
    """Weights from a folder; a head it lacks, or one for other labels, is new and random."""
    import torch
    import transformers

    auto = getattr(transformers, checkpoint.task.auto_class)
    try:
        model, info = auto.from_pretrained(
            checkpoint.path,
            config=checkpoint.config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=not checkpoint.allow_pickle or None,
            trust_remote_code=checkpoint.trust_remote_code,
            local_files_only=True,
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"student {checkpoint.source} cannot be loaded: {reason}") from error
    prefix = f"{model.base_model_prefix}."
    wrong = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    # A model without a head is the encoder itself, and its weights have no prefix.
    bare = model.base_model is model
    inside = (key for key in wrong if bare or key.startswith(prefix))
    lost = sorted(key for key in inside if "pooler." not in key)
    if lost:
        raise CheckpointError(f"student {checkpoint.source} has no weights for '{lost[0]}'")
    return model
