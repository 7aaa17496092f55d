"""Students of another architecture than their teacher's: their shape, and what they take over."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.recipe.student import StudentSpec, spec_keys
from distill.tasks import task_training
from edge.errors import ConfigError, UserError, unknown_name
from edge.models import MODELS, register
from edge.models.activation import take_activation
from edge.models.positions import unused_positions

if TYPE_CHECKING:
    from distill.students.base import Teacher

DISTILBERT = "distilbert"
# Architectures whose sizes are their own; others take the teacher's where none are asked for.
_OWN_SHAPE = {"mobilebert", *MODELS}
# What a SPEC's sizes are called in a configuration; elsewhere Transformers' usual names.
_USUAL = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "embedding": "embedding_size",
}
_NAMES: dict[str, dict[str, str]] = {
    "bilstm": {
        "layers": "num_hidden_layers",
        "hidden": "lstm_size",
        "intermediate": "classifier_size",
        "embedding": "embedding_size",
    },
    "cnn": {"hidden": "filters", "embedding": "embedding_size"},
}
# What every student shares with its teacher, whatever it is.
_SHARED = ("vocab_size", "pad_token_id", "id2label", "label2id", "problem_type")
# DistilBERT's names for BERT's modules. The first that matches holds.
_DISTILBERT_NAMES = (
    (r"embeddings\.", r"distilbert.embeddings."),
    (
        r"encoder\.layer\.(\d+)\.attention\.self\.(q|k|v)(?:uery|ey|alue)\.",
        r"@\1.attention.\2_lin.",
    ),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"@\1.attention.out_lin."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"@\1.sa_layer_norm."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"@\1.ffn.lin1."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"@\1.ffn.lin2."),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"@\1.output_layer_norm."),
    (r"(?:cls\.predictions\.transform|lm_head)\.dense\.", "vocab_transform."),
    (r"cls\.predictions\.transform\.LayerNorm\.", "vocab_layer_norm."),
    (r"lm_head\.layer_norm\.", "vocab_layer_norm."),
    (r"(?:cls\.predictions|lm_head)\.decoder\.", "vocab_projector."),
)
_LAYER = "distilbert.transformer.layer."


def is_other(spec: StudentSpec, teacher: Teacher) -> bool:
    """Whether the student is of another architecture, or has a shape of its own in any case."""
    theirs = teacher.model.config.model_type
    return spec.architecture is not None and (
        spec.architecture != theirs or spec.architecture in _OWN_SHAPE
    )


def other_config(spec: StudentSpec, teacher: Teacher) -> Any:
    """The configuration of another architecture, for the teacher's vocabulary, labels and lengths.

    Raises ConfigError for a name that is not known, or a key or size it does not have.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert spec.architecture is not None
    name, theirs = spec.architecture, teacher.model.config
    if name not in CONFIG_MAPPING_NAMES and name not in MODELS:
        raise unknown_name("architecture", name, [*CONFIG_MAPPING_NAMES, *MODELS])
    register(name)
    values = {key: copy.deepcopy(getattr(theirs, key, None)) for key in _SHARED}
    values["max_position_embeddings"] = _positions(theirs) + unused_positions(theirs, name)
    if hasattr(theirs, "type_vocab_size"):
        values["type_vocab_size"] = theirs.type_vocab_size
    default = AutoConfig.for_model(name)
    known = {**_settings_of(default), **values}
    names = {key: own for key, own in _NAMES.get(name, _USUAL).items() if hasattr(default, own)}
    if name not in _OWN_SHAPE or name == theirs.model_type:
        usual = (
            own for key, own in names.items() if key != "intermediate" or name not in _OWN_SHAPE
        )
        values |= {own: getattr(theirs, own) for own in usual if hasattr(theirs, own)}
    values |= _sizes(spec, names) | _checked(spec.settings, known, name)
    config = AutoConfig.for_model(name, **values)
    take_activation(config, theirs)
    _check_heads(config)
    return config


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration with other values for keys it has; raises ConfigError for one it lacks."""
    config = copy.deepcopy(config)
    for key, value in _checked(settings, _settings_of(config), config.model_type).items():
        setattr(config, key, value)
    return config


def embed_alike(student: Any, teacher: Any) -> None:
    """Give a student its teacher's word embeddings, of fewer dimensions where it has fewer.

    Those are the projections on the first singular vectors, the best factorisation V x E + E x H
    of the table; what widens them again is the student's own to learn. A student of other tokens
    stays as it is, and so do further dimensions.
    """
    import torch

    from distill.students.projection import eigenvectors

    ours, theirs = (model.get_input_embeddings().weight for model in (student, teacher))
    if len(ours) != len(theirs):
        return
    with torch.no_grad():
        if ours.shape == theirs.shape:
            ours.copy_(theirs)
            return
        table = theirs.double()
        # Those of the small square are the table's right singular vectors.
        vectors = eigenvectors(table.T @ table)
        width = min(ours.shape[1], theirs.shape[1])
        ours[:, :width] = (table @ vectors[:, :width]).to(ours.dtype)


def as_distilbert(teacher: Teacher, *, weights: bool = True) -> Teacher:
    """The same encoder as a DistilBERT, whose hidden states are the teacher's.

    It has no token types: their first row is part of its positions. A text classifier's head is
    another and stays random; all other heads are taken over. Raises UserError for a teacher whose
    modules are not BERT's.
    """
    import transformers

    auto = getattr(transformers, teacher.checkpoint.task.auto_class)
    config = _distilbert_config(teacher.model.config)
    model = auto.from_config(config, dtype=teacher.model.dtype).eval()
    if weights:
        _carry(teacher, model)
    return replace(teacher, checkpoint=replace(teacher.checkpoint, config=config), model=model)


def _distilbert_config(theirs: Any) -> Any:
    from transformers import DistilBertConfig

    try:
        return DistilBertConfig(
            **{key: copy.deepcopy(getattr(theirs, key, None)) for key in _SHARED},
            max_position_embeddings=_positions(theirs),
            n_layers=theirs.num_hidden_layers,
            n_heads=theirs.num_attention_heads,
            dim=theirs.hidden_size,
            hidden_dim=theirs.intermediate_size,
            activation=theirs.hidden_act,
            dropout=theirs.hidden_dropout_prob,
            attention_dropout=theirs.attention_probs_dropout_prob,
            initializer_range=theirs.initializer_range,
            tie_word_embeddings=theirs.tie_word_embeddings,
        )
    except AttributeError:
        raise _not_like_bert(theirs) from None


def _carry(teacher: Teacher, model: Any) -> None:
    theirs = teacher.model
    reading = task_training(teacher.checkpoint.task.name).reading
    offset = unused_positions(theirs.config)
    found, types = {}, None
    for name, value in theirs.state_dict().items():
        short = name.removeprefix(f"{theirs.base_model_prefix}.")
        if short == "embeddings.token_type_embeddings.weight":
            types = value[0]
        elif short == "embeddings.position_embeddings.weight":
            found[f"distilbert.{short}"] = value[offset:]
        else:
            found[_distilbert_name(short)] = value
    if types is not None and "distilbert.embeddings.position_embeddings.weight" in found:
        positions = found["distilbert.embeddings.position_embeddings.weight"]
        found["distilbert.embeddings.position_embeddings.weight"] = positions + types
    head = ("pre_classifier.", "classifier.") if reading.classifies_texts else ()
    ours = {name: value for name, value in model.state_dict().items() if not name.startswith(head)}
    # A model without a head is the encoder itself.
    prefix = "distilbert." if model.base_model is model else ""
    for name, value in ours.items():
        if prefix + name not in found or found[prefix + name].shape != value.shape:
            raise _not_like_bert(theirs.config)
    model.load_state_dict({name: found[prefix + name] for name in ours}, strict=False)


def _distilbert_name(name: str) -> str:
    for pattern, ours in _DISTILBERT_NAMES:
        found, count = re.subn(rf"^{pattern}", ours, name)
        if count:
            return found.replace("@", _LAYER)
    return name


def _not_like_bert(config: Any) -> UserError:
    return UserError(
        f"{config.model_type} has not the modules that DistilBERT takes over from BERT: add "
        "init=random, or leave out architecture="
    )


def _settings_of(config: Any) -> dict[str, Any]:
    """What a configuration may be told, and its values."""
    return {key: value for key, value in config.to_dict().items() if key != "model_type"}


def _checked(settings: Mapping[str, Any], known: Mapping[str, Any], name: str) -> dict[str, Any]:
    for key in settings:
        if key not in known:
            raise unknown_name(f"student key of {name}", key, {*known, *spec_keys()})
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


def _sizes(spec: StudentSpec, names: Mapping[str, str]) -> dict[str, int]:
    """What the SPEC asks for, as the architecture calls it."""
    found = {}
    for key in _USUAL:
        value = getattr(spec, key)
        if value is None:
            continue
        if key not in names:
            sizes = ", ".join(names)
            raise ConfigError(f"{spec.architecture} has no {key}: its sizes are {sizes}")
        if key == "layers" and not isinstance(value, int):
            raise ConfigError(
                f"layers={value} chooses layers of a teacher, and {spec.architecture} takes none "
                "over: give their number"
            )
        found[names[key]] = value
    return found


def _check_heads(config: Any) -> None:
    heads = getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "true_hidden_size", config.hidden_size)
    if width % heads:
        raise ConfigError(
            f"{config.model_type}: {width} units of attention cannot be split into {heads} heads: "
            "choose another heads=N"
        )


def _positions(config: Any) -> int:
    """The longest text in tokens."""
    return config.max_position_embeddings - unused_positions(config)
