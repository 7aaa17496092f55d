"""What a folder of signals says about itself: what it was made from, and that it is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt

from distill.students import Teacher
from distill.teachers.signals import Floats
from distill.teachers.store import Column
from edge.config import Config
from edge.data import Table
from edge.errors import ConfigError
from edge.provenance import versions
from edge.tokenization import describe

Array = npt.NDArray[Any]
MANIFEST = "cache.json"
LENGTHS = "lengths.npy"


class Identity(Config):
    """What a cache was made from: with all of it equal, the teacher would say the same again.

    teacher, tokenizer, data: hashes of the model, the tokenizer and the texts. compute: the
    precision the teacher ran in. dtype: what its inside is kept in; answers are always float32.
    top_k: how many tokens are kept of an answer over a vocabulary. versions: of tool and libraries.
    """

    teacher: str
    tokenizer: str
    data: str
    max_length: PositiveInt
    compute: Literal["float32", "bfloat16"] = "float32"
    dtype: Floats = "float16"
    top_k: PositiveInt | None = None
    versions: dict[str, str | None] = {}

    def differences(self, other: Identity) -> list[str]:
        """In words, what `other` was made from that this was not."""
        words = {"teacher": "another teacher", "tokenizer": "another tokenizer"}
        words["data"] = "other data"
        ours, theirs = (dict(one) | dict(one.versions) for one in (self, other))
        return [
            words.get(name, f"{name} {theirs.get(name)} where this run has {ours.get(name)}")
            for name in {**ours, **theirs}
            if name != "versions" and ours.get(name) != theirs.get(name)
        ]


class Manifest(Config):
    """What a cache folder says about itself. vocabulary: the tokens an answer is about."""

    identity: Identity
    columns: tuple[Column, ...]
    vocabulary: int | None = None


def identify(
    teacher: Teacher,
    table: Table,
    *,
    max_length: int,
    bf16: bool = False,
    dtype: Floats = "float16",
    top_k: int | None = None,
) -> Identity:
    """The identity of a cache of what `teacher` says about the rows of `table`."""
    text, info = describe(teacher.tokenizer, folder=teacher.checkpoint.path)
    return Identity(
        teacher=teacher.checkpoint.answers_sha256,
        tokenizer=_hash([json.loads(text), info.model_dump()]),
        data=_hash([table.texts, table.pairs, table.words]),
        max_length=max_length,
        compute="bfloat16" if bf16 else "float32",
        dtype=dtype,
        top_k=top_k,
        versions=versions("distill"),
    )


def check_made_from(folder: Path, identity: Identity) -> Manifest:
    """What a cache says of itself; raises ConfigError, naming what differs from `identity`."""
    manifest = read_manifest(folder)
    differences = identity.differences(manifest.identity)
    if differences:
        raise ConfigError(
            f"teacher cache {folder} was made with {', '.join(differences)}: name another folder "
            "or remove this one"
        )
    return manifest


def disk_order(lengths: Array) -> Array:
    """Rows as they lie on disk: longest first, so that what does not fit memory shows at once."""
    order: Array = np.argsort(-lengths.astype(np.int64), kind="stable")
    return order


def read_manifest(folder: Path) -> Manifest:
    """Raises ConfigError when it is missing or damaged."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error})") from None
    return Manifest.build(values, where=f"teacher cache {folder}")


def load_lengths(folder: Path) -> Array:
    """The tokens of each row, (N,), in the order of the data."""
    try:
        lengths: Array = np.load(folder / LENGTHS)
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{LENGTHS} cannot be read ({error})") from None
    return lengths


def check_sizes(folder: Path, columns: tuple[Column, ...], lengths: Array) -> None:
    """Raise ConfigError when a file is shorter or longer than its rows."""
    for column in columns:
        file = folder / column.file
        found, expected = file.stat().st_size if file.is_file() else 0, column.size_bytes(lengths)
        if found != expected:
            raise _damaged(folder, f"{file.name} has {found} bytes where {expected} belong")


def _damaged(folder: Path, problem: str) -> ConfigError:
    return ConfigError(f"teacher cache {folder} is damaged: {problem}; remove it to fill it again")


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
