"""Building a student from a SPEC and, where there is one, its teacher."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from distill.mapping import spread
from distill.spec import StudentSpec
from edge.checkpoint import Checkpoint, load_tokenizer, open_checkpoint
from edge.console import hush
from edge.data import Table
from edge.errors import CheckpointError, ConfigError, DataError, UserError
from edge.tasks import Task, get_task

# The tasks a student can be trained for, and the one it is made for without a teacher.
TASKS = ("text-classification", "token-classification", "question-answering", "fill-mask")
TASK = TASKS[0]
# Layers of a feed-forward block, by architecture.
_INTERMEDIATE = ("intermediate_size", "hidden_dim")
_MAX_DERIVED_LABELS = 1000


@dataclass(frozen=True)
class Teacher:
    """An opened teacher: its checkpoint, its loaded model, its Transformers tokenizer."""

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Student:
    """A model ready to be trained.

    checkpoint: what it was made of, with the student's own configuration. copied_layers: the
    teacher's layers it starts from, counted from 0, where there are any.
    """

    model: Any
    tokenizer: Any
    checkpoint: Checkpoint
    copied_layers: tuple[int, ...] | None = None

    @property
    def task(self) -> Task:
        return self.checkpoint.task


def build_student(
    spec: StudentSpec,
    teacher: Teacher | None,
    table: Table,
    *,
    seed: int,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Student:
    """A float32 student; `table` gives the labels where neither teacher nor config has them.

    Raises ConfigError for a shape that cannot be built, CheckpointError for a source that cannot
    be used or disagrees with the teacher, UserError for an architecture without a layer list.
    """
    import transformers

    transformers.set_seed(seed)
    if spec.source is None:
        if teacher is None:
            raise ConfigError(
                "a student described by its layers is made of a teacher: name it with --teacher, "
                "or give --student a checkpoint folder or a config.json"
            )
        return _from_teacher(spec, teacher)
    student = _from_source(
        spec.source,
        teacher,
        table,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    vocabulary = len(student.tokenizer)
    if vocabulary > student.model.config.vocab_size:
        raise CheckpointError(
            f"student {spec.source} embeds {student.model.config.vocab_size} tokens where its "
            f"tokenizer has {vocabulary}: set vocab_size to {vocabulary} in its config.json"
        )
    return student


def _from_teacher(spec: StudentSpec, teacher: Teacher) -> Student:
    total = teacher.model.config.num_hidden_layers
    layers = _chosen_layers(spec, total)
    config = _resized(teacher.model.config, spec, layers)
    with hush():
        model = _new_model(replace(teacher.checkpoint, config=config))
    checkpoint = replace(teacher.checkpoint, config=model.config)
    if spec.init == "random":
        return Student(model, teacher.tokenizer, checkpoint)
    _copy_weights(teacher.model, model, layers)
    fits = config.hidden_size == teacher.model.config.hidden_size
    return Student(model, teacher.tokenizer, checkpoint, copied_layers=layers if fits else None)


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
    config = copy.deepcopy(config)
    total = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        # A setting for each layer, such as ModernBERT's `layer_types`.
        if "layer" in name and isinstance(value, list) and len(value) == total:
            setattr(config, name, [value[i % total] for i in layers])
    config.num_hidden_layers = len(layers)
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
    if name is not None:
        wide = spec.intermediate or getattr(config, name) * hidden // old_hidden
        setattr(config, name, wide)
    return config


def _new_model(checkpoint: Checkpoint) -> Any:
    """A random model of a checkpoint's configuration and task."""
    import torch
    import transformers

    auto = getattr(transformers, checkpoint.task.auto_class)
    trusted = checkpoint.trust_remote_code
    try:
        return auto.from_config(checkpoint.config, dtype=torch.float32, trust_remote_code=trusted)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"a student of this shape cannot be built: {reason}") from error


def _copy_weights(teacher: Any, student: Any, layers: tuple[int, ...]) -> None:
    """Give the student every weight of the teacher that has its shape, layers renumbered."""
    prefix = _layer_prefix(teacher)
    source, target = teacher.state_dict(), student.state_dict()
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    found = {}
    for name, value in target.items():
        ours = pattern.sub(lambda match: f"{prefix}.{layers[int(match[1])]}.", name)
        if ours in source and source[ours].shape == value.shape:
            found[name] = source[ours].detach().clone()
    student.load_state_dict(found, strict=False)


def _layer_prefix(model: Any) -> str:
    """The name of the list of layers, e.g. `bert.encoder.layer`."""
    from torch import nn

    depth = model.config.num_hidden_layers
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [name for name in lists if not any(name.startswith(f"{o}.") for o in lists)]
    if len(outer) != 1:
        raise UserError(
            f"{model.config.model_type} keeps no list of its {depth} layers, so they cannot be "
            "skipped: give --student a checkpoint folder, a config.json, or init=random"
        )
    return outer[0]


def _from_source(
    source: str,
    teacher: Teacher | None,
    table: Table,
    *,
    allow_pickle: bool,
    trust_remote_code: bool,
) -> Student:
    task = teacher.checkpoint.task.name if teacher else TASK
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
        model = _new_model(checkpoint) if config_only else _load_encoder(checkpoint)
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
    labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    found = get_task(task, labels=labels, problem_type=config.problem_type)
    return Checkpoint(str(path), folder, config, found, trust_remote_code=trust_remote_code)


def _with_labels(
    checkpoint: Checkpoint, teacher: Teacher | None, table: Table, *, has_weights: bool
) -> Checkpoint:
    """The checkpoint with the teacher's labels, its own, or else those of the data."""
    if teacher is not None and teacher.checkpoint.labels is None:
        return checkpoint  # nothing to name, as where questions are answered
    config = copy.deepcopy(checkpoint.config)
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
        labels = _labels_of(table)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    task = get_task(checkpoint.task.name, labels=labels, problem_type=problem)
    config.problem_type = task.problem_type
    return replace(checkpoint, config=config, task=task)


def _labels_of(table: Table) -> tuple[str, ...]:
    """The classes a data file speaks of; one unnamed class when its targets are scores."""
    if table.target_names:
        return table.target_names
    values = {str(value) for value in table.targets or []}
    if all(re.fullmatch(r"\d+", value) for value in values):
        names = tuple(f"LABEL_{i}" for i in range(max(int(value) for value in values) + 1))
    elif all(re.fullmatch(r"-?\d+(\.\d*)?", value) for value in values):
        return ("LABEL_0",)
    else:
        names = tuple(sorted(values))
    if len(names) > _MAX_DERIVED_LABELS:
        raise DataError(f"{table.source} has {len(names)} labels: is --label-column the right one?")
    return names


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
    lost = sorted(key for key in wrong if key.startswith(prefix) and "pooler." not in key)
    if lost:
        raise CheckpointError(f"student {checkpoint.source} has no weights for '{lost[0]}'")
    return model
