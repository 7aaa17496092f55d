"""The inputs of a comparison: real texts, tokenised, the same for every model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmark.schema import InputsInfo
from edge.bundle import Bundle
from edge.data import Columns
from edge.engines.runner import bundle_task, bundle_tokenizer
from edge.errors import ConfigError
from edge.tokenization import Encoding, pad
from edge.wire import Array

# Enough for a model to see different texts, few enough to stay in the caches beside it.
SAMPLES = 16
GOLDEN = "golden"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class InputSet:
    """name -> int32 of shape (n, length), padded, and where the texts came from."""

    dataset: str
    arrays: Mapping[str, Array]

    @cached_property
    def info(self) -> InputsInfo:
        ids, mask = self.arrays["input_ids"], self.arrays["attention_mask"]
        return InputsInfo(
            dataset=self.dataset,
            sha256=self._digest(),
            batch=1,
            samples=len(ids),
            seq_len=ids.shape[1],
            real_len_p50=float(np.median(mask.sum(axis=1))),
        )

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name], "<i4")
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def prepare(
    bundle: Bundle, length: int, *, data: str | Path | None, columns: Columns, seed: int
) -> InputSet:
    """A sample of the texts in `data`, or of the bundle's golden texts, padded to `length`.

    Raises DataError when the data cannot be read or holds no text.
    """
    info = bundle.manifest.tokenizer
    if data is None:
        found = [
            Encoding(case.input_ids, case.token_type_ids)
            for case in bundle.golden_cases()
            if case.text.strip()
        ]
        found = _sample(found, seed)
    else:
        found = _encode(bundle, length, data, columns, seed)
    names = {*info.inputs, "input_ids", "attention_mask"}
    arrays = pad(found, length, inputs=sorted(names), pad_id=info.pad_token_id)
    return InputSet(GOLDEN if data is None else Path(data).name, arrays)


def adapted(
    inputs: InputSet, names: Collection[str], *, vocabulary: int | None = None, types: int = 2
) -> InputSet:
    """The same inputs for a model that takes `names` and has a vocabulary of its own.

    Ids are taken modulo the model's vocabulary and number of token types: how long a model takes
    depends on the length of its input, not on which ids are in it.
    """
    arrays = {}
    for name in names:
        if name not in inputs.arrays and name != "token_type_ids":
            raise ConfigError(f"cannot time a model with an input called '{name}'")
        values = inputs.arrays.get(name, np.zeros_like(inputs.arrays["input_ids"]))
        if name == "input_ids" and vocabulary:
            values = values % vocabulary
        if name == "token_type_ids":
            values = values % max(1, types)
        arrays[name] = values
    return replace(inputs, arrays=arrays)


def _encode(
    bundle: Bundle, length: int, data: str | Path, columns: Columns, seed: int
) -> list[Encoding]:
    table = bundle_task(bundle).read(data, columns=columns, targets=False)
    written = [row for row, text in enumerate(table.texts) if text.strip()]
    table = table.take(_sample(written or list(range(len(table))), seed))
    pairs = table.pairs if bundle_task(bundle).takes_pairs else None
    return bundle_tokenizer(bundle).encode(table.texts, pairs, max_length=length)


def _sample(values: list[T], seed: int) -> list[T]:
    if len(values) <= SAMPLES:
        return values
    return random.Random(seed).sample(values, SAMPLES)
