"""Students that read a vocabulary of their own, learned from the texts they train on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distill.students.base import Student, Teacher
from distill.tasks import tasks_where
from edge.console import hush
from edge.data import Table
from edge.errors import ConfigError


def with_vocabulary(student: Student, teacher: Teacher, table: Table, size: int) -> Student:
    """The student with at most `size` tokens in all, learned from `table` as the teacher's were.

    Special tokens and those that were added to the teacher's tokenizer stay. A token starts as the
    mean of the pieces that the teacher's vocabulary makes of it: as the teacher's, where that has
    it. Raises ConfigError for a task whose answers belong to words, for fewer tokens than the
    texts need, and for more than the teacher's, unless it has those very tokens.
    Sources: Zhao et al. 2019, "Extremely Small BERT Models from Mixed-Vocabulary Training", 3 (a
    small vocabulary learned from the texts); Gee et al. 2022, "Fast Vocabulary Transfer for
    Language Model Compression", 2.2 (the mean of pieces).
    """
    allowed = tasks_where(lambda training: training.allows_own_vocabulary)
    if student.task.name not in allowed:
        raise ConfigError(
            f"vocabulary={size}: {student.task.name} answers for each token, which teacher and "
            f"student must then share: it is for {' and '.join(allowed)}"
        )
    with hush():
        tokenizer = _trained(teacher.tokenizer, _texts(table), size)
    _embed_anew(student.model, teacher.tokenizer, tokenizer)
    checkpoint = replace(student.checkpoint, config=student.model.config)
    return replace(student, tokenizer=tokenizer, checkpoint=checkpoint)


def _texts(table: Table) -> list[str]:
    return [*table.texts, *(table.pairs or [])]


def _trained(tokenizer: Any, texts: list[str], size: int) -> Any:
    """A tokenizer like another one, with word pieces learned from `texts`, the same in every run.

    Raises ConfigError for one that has no word pieces, and for a size that cannot be.
    """
    import tokenizers

    inner = tokenizer.backend_tokenizer
    values = json.loads(inner.to_str())
    model = values["model"]
    if model.get("type") != "WordPiece":
        raise ConfigError(
            f"vocabulary={size} learns word pieces, and the teacher's tokenizer is "
            f"{model.get('type')}: leave it out"
        )
    special = _special_and_added(tokenizer, values["added_tokens"])
    prefix = model["continuing_subword_prefix"]
    needed = list(dict.fromkeys([*special, *_letters(inner, texts, prefix)]))
    _check_size(size, len(tokenizer), len(special), len(needed))
    model["vocab"] = _vocabulary(inner, model, needed, texts, size)
    if size >= len(tokenizer) and model["vocab"] != tokenizer.get_vocab():
        raise _too_many(size, len(tokenizer))
    values["added_tokens"] = [
        {**one, "id": model["vocab"][one["content"]]} for one in values["added_tokens"]
    ]
    values["post_processor"] = _renumbered(values["post_processor"], model["vocab"])
    return _like(tokenizer, tokenizers.Tokenizer.from_str(json.dumps(values)))


def _special_and_added(tokenizer: Any, added: list[dict[str, Any]]) -> list[str]:
    """Special and added tokens in the order of their ids, padding at its own where that is near.

    Architectures count positions from the id of padding.
    """
    known = tokenizer.get_vocab()
    names = {*tokenizer.all_special_tokens, *(one["content"] for one in added)}
    tokens = sorted(names, key=known.__getitem__)
    if tokenizer.pad_token is not None and known[tokenizer.pad_token] < len(tokens):
        tokens.remove(tokenizer.pad_token)
        tokens.insert(known[tokenizer.pad_token], tokenizer.pad_token)
    return tokens


def _check_size(size: int, known: int, special: int, needed: int) -> None:
    """Raise ConfigError for fewer tokens than are needed, where there may be as many at all."""
    if size >= needed:
        return
    if size >= known:
        raise _too_many(size, known)
    more = f"ask for at least {needed}"
    if needed >= known:
        more = f"leave it out, as the teacher has {known}"
    raise ConfigError(
        f"vocabulary={size} is less than the {needed} tokens that these texts need, {special} "
        f"special or added ones and {needed - special} letters: {more}"
    )


def _too_many(size: int, known: int) -> ConfigError:
    return ConfigError(f"vocabulary={size}: the teacher has {known} tokens, ask for fewer")


def _vocabulary(
    inner: Any, model: Mapping[str, Any], needed: list[str], texts: list[str], size: int
) -> dict[str, int]:
    """Tokens and their ids: those that are `needed` first, then pieces of words up to `size`."""
    import tokenizers
    from tokenizers import models, trainers

    blank = tokenizers.Tokenizer(models.WordPiece(unk_token=model["unk_token"]))
    blank.normalizer, blank.pre_tokenizer = inner.normalizer, inner.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # Its own order of letters changes from run to run, and with it which of two equally
        # frequent pairs becomes a piece: what is special keeps its place.
        special_tokens=needed,
        continuing_subword_prefix=model["continuing_subword_prefix"],
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer)
    learned: dict[str, int] = blank.get_vocab()
    return learned


def _like(tokenizer: Any, inner: Any) -> Any:
    """A Transformers tokenizer around `inner` with the settings of another one."""
    import transformers

    names = ("model_max_length", "model_input_names", "padding_side", "truncation_side")
    settings = {name: getattr(tokenizer, name) for name in names}
    roles = tokenizer.special_tokens_map
    extra = [one for one in tokenizer.all_special_tokens if one not in roles.values()]
    settings |= {"extra_special_tokens": extra} if extra else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **settings, **roles)


def _letters(inner: Any, texts: list[str], prefix: str) -> list[str]:
    """All letters of words, which any word may start with, and, with `prefix`, those that go on."""
    letters: set[str] = set()
    later: set[str] = set()
    for text in texts:
        normal = inner.normalizer.normalize_str(text) if inner.normalizer else text
        for word, _ in inner.pre_tokenizer.pre_tokenize_str(normal):
            letters.update(word)
            later.update(word[1:])
    return [*sorted(letters), *(prefix + letter for letter in sorted(later))]


def _renumbered(values: Any, vocabulary: Mapping[str, int]) -> Any:
    """What a tokenizer adds to a text, with the tokens' new numbers."""
    if isinstance(values, dict):
        if {"ids", "tokens"} <= set(values):
            return {**values, "ids": [vocabulary[token] for token in values["tokens"]]}
        return {key: _renumbered(value, vocabulary) for key, value in values.items()}
    if isinstance(values, list):
        if len(values) == 2 and isinstance(values[1], int) and values[0] in vocabulary:
            return [values[0], vocabulary[values[0]]]
        return [_renumbered(value, vocabulary) for value in values]
    return values


def _embed_anew(model: Any, theirs: Any, ours: Any) -> None:
    """Give the model a row for each token of `ours`, made of those it had for `theirs`.

    Rows are of its embeddings, and of the layer that guesses tokens where there is one.
    """
    import torch

    pieces = _pieces(theirs, ours)

    def anew(old: Any) -> Any:
        return torch.stack([old[index].mean(0) for index in pieces])

    before = _rows(model)
    found = [(anew(weight), None if bias is None else anew(bias)) for weight, bias in before]
    model.resize_token_embeddings(len(ours), mean_resizing=False)
    with torch.no_grad():
        for (weight, bias), (new, shift) in zip(_rows(model), found, strict=True):
            weight.copy_(new)
            if bias is not None:
                bias.copy_(shift)
    model.get_input_embeddings().padding_idx = ours.pad_token_id
    model.config = _resized(model.config, theirs, ours)


def _rows(model: Any) -> list[tuple[Any, Any]]:
    """Weight and bias of what reads tokens and of what guesses them; no bias is None."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [(one.weight, getattr(one, "bias", None)) for one in layers if one is not None]


def _pieces(theirs: Any, ours: Any) -> list[list[int]]:
    """The tokens of `theirs` that say what each of `ours` does, in the order of ours."""
    known = theirs.get_vocab()
    found: list[list[int]] = [[] for _ in range(len(ours))]
    for token, index in ours.get_vocab().items():
        if token in known:
            found[index] = [known[token]]
        else:
            text = ours.convert_tokens_to_string([token]).removeprefix("##")
            pieces = theirs.encode(text, add_special_tokens=False)
            found[index] = pieces or [theirs.unk_token_id or 0]
    return found


def _resized(config: Any, theirs: Any, ours: Any) -> Any:
    """The configuration for the tokens of `ours`: every id of a token is that token's new one."""
    config = copy.deepcopy(config)
    config.vocab_size = len(ours)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            token = theirs.convert_ids_to_tokens(value)
            setattr(config, name, ours.get_vocab().get(token))
    return config
