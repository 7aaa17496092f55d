"""The names of a checkpoint's classes, read so that each output has one name of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge.console import say
from edge.errors import CheckpointError

_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
_DEFAULT = re.compile(r"LABEL_\d+")


def read_labels(values: Mapping[str, Any], *, where: str) -> dict[int, str] | None:
    """Names by output index of a config.json's values; None where it gives none.

    Raises CheckpointError unless `id2label` numbers the outputs from 0 without a gap, all names
    differ, and `label2id` agrees with it.
    """
    check_objects(values, where=where)
    by_id, ids = values.get("id2label"), _numbers(values.get("label2id") or {}, where)
    named = bool(ids) and not all(_DEFAULT.fullmatch(name) for name in ids)
    if by_id is None and not named:
        return None
    if by_id is None or (named and _are_defaults(by_id) and len(by_id) == len(ids)):
        # The names are there, the other way round.
        if by_id is not None:
            say(f"{where}: id2label has no names of its own, so those of label2id are taken")
        by_id = {index: name for name, index in ids.items()}
        if len(by_id) != len(ids):
            raise CheckpointError(f"{where}: label2id gives two names the same number")
    labels = _ordered(by_id, where)
    _check_names(labels, where)
    count = values.get("num_labels")
    if count is not None and count != len(labels):
        raise CheckpointError(
            f"{where}: num_labels = {count!r}, and id2label has {len(labels)} names"
        )
    _check_distinct(labels, where)
    for index, name in labels.items():
        if ids.get(name, index) != index:
            raise CheckpointError(
                f"{where}: '{name}' is number {index} in id2label and number {ids[name]} in "
                "label2id: correct the wrong one"
            )
    others = [name for name in ids if name not in labels.values() and not _DEFAULT.fullmatch(name)]
    if others:
        say(f"{where}: label2id names '{others[0]}', which id2label lacks; id2label is followed")
    return labels


def check_objects(values: Mapping[str, Any], *, where: str) -> None:
    """Raise CheckpointError unless `id2label` and `label2id` are objects with numbers."""
    by_id, by_name = values.get("id2label"), values.get("label2id")
    for key, value in (("id2label", by_id), ("label2id", by_name)):
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"{where}: {key} must be an object of numbers and names")
    _numbers(by_name or {}, where)
    _names_by_number(by_id or {}, where)


def check_outputs(task: str, problem_type: str | None, outputs: int, *, where: str) -> None:
    """Raise CheckpointError for a head whose size or kind does not fit what it is for."""
    if task == "text-classification" and problem_type not in (None, *_PROBLEMS):
        raise CheckpointError(
            f"{where}: problem_type = {problem_type!r} is not one of {', '.join(_PROBLEMS)}"
        )
    if task == "question-answering" and outputs != 2:
        raise CheckpointError(
            f"{where}: question-answering needs 2 outputs, start and end, and id2label has "
            f"{outputs}"
        )
    if task == "text-classification" and problem_type == "regression" and outputs != 1:
        raise CheckpointError(
            f"{where}: problem_type = 'regression' with {outputs} outputs is not supported: only "
            "one score a text"
        )


def _are_defaults(by_id: Mapping[Any, Any]) -> bool:
    return all(_DEFAULT.fullmatch(str(name)) for name in by_id.values())


def _names_by_number(by_id: Mapping[Any, Any], where: str) -> dict[int, Any]:
    try:
        return {int(key): name for key, name in by_id.items()}
    except (TypeError, ValueError):
        shown = ", ".join(map(str, list(by_id)[:5]))
        raise CheckpointError(
            f"{where}: id2label must have numbers for keys, and has {shown}"
        ) from None


def _check_names(labels: Mapping[int, str], where: str) -> None:
    for index, name in labels.items():
        problem = None
        if not name.strip():
            problem = "is empty"
        elif any("\ud800" <= letter <= "\udfff" for letter in name):
            problem = "holds half a character, which no file can store"
        if problem:
            raise CheckpointError(f"{where}: the name {name!r} of output {index} {problem}")


def _ordered(by_id: Mapping[Any, Any], where: str) -> dict[int, str]:
    values = _names_by_number(by_id, where)
    for index, value in values.items():
        if value is None or isinstance(value, list | dict):
            raise CheckpointError(
                f"{where}: id2label gives output {index} {str(value)[:40]!r} for a name: name it "
                "by a text"
            )
    named = {index: str(value) for index, value in values.items()}
    missing = [index for index in range(len(by_id)) if index not in named]
    if missing or not named:
        shown = ", ".join(map(str, sorted(named)[:8])) or "none"
        raise CheckpointError(
            f"{where}: id2label numbers the outputs {shown}: number them from 0 without a gap, in "
            "the order of the logits"
        )
    return dict(sorted(named.items()))


def _numbers(by_name: Mapping[Any, Any], where: str) -> dict[str, int]:
    try:
        return {str(name): int(index) for name, index in by_name.items()}
    except (TypeError, ValueError):
        raise CheckpointError(f"{where}: label2id must have numbers for values") from None


def _check_distinct(labels: Mapping[int, str], where: str) -> None:
    first: dict[str, int] = {}
    for index, name in labels.items():
        if name in first:
            raise CheckpointError(
                f"{where}: id2label gives outputs {first[name]} and {index} the same name "
                f"'{name}': rename one, or no answer tells them apart"
            )
        first[name] = index
