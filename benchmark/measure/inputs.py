"""The inputs of a comparison: real texts, tokenized, the same for every model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from benchmark.schema import InputsInfo
from edge.bundle import Bundle
from edge.data import Columns
from edge.engines.runner import bundle_task, bundle_tokenizer
from edge.errors import ConfigError
from edge.process.wire import Array
from edge.tokenization import Encoding, pad

# Enough for a model to see different texts, few enough to stay in the caches beside it.
SAMPLES = 16
GOLDEN = "golden"
Feed = Mapping[str, Array]
Padding = Literal["fixed", "shortest"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Texts:
    """Tokenized texts before padding.

    encodings: of each text, with its pair, at most as long as the longest input. pad_id: of the
    bundle's tokenizer, which made the encodings.
    """

    dataset: str
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    encodings: tuple[Encoding, ...]
    pad_id: int


@dataclass(frozen=True, eq=False)
class InputSet:
    """One feed per inference, name -> int32 of shape (batch, length), and the feeds' dataset.

    lengths: tokens of each text without padding.
    """

    dataset: str
    feeds: tuple[Feed, ...]
    lengths: tuple[int, ...]
    padding: Padding = "fixed"

    @cached_property
    def info(self) -> InputsInfo:
        shapes = [feed["input_ids"].shape for feed in self.feeds]
        return InputsInfo(
            dataset=self.dataset,
            sha256=self._digest(),
            batch=shapes[0][0],
            samples=len(self.lengths),
            seq_len=max(length for _, length in shapes),
            padding=self.padding,
            real_len_p50=float(np.median(self.lengths)),
        )

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for feed in self.feeds:
            for name in sorted(feed):
                array = np.ascontiguousarray(feed[name], "<i4")
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()


def read_texts(
    bundle: Bundle,
    length: int,
    *,
    data: str | Path | None,
    columns: Columns,
    seed: int,
    count: int | None = SAMPLES,
) -> Texts:
    """Read a sample of `count` texts of `data`, or of the bundle's golden texts.

    length: tokens that a text is truncated to. count: None for all texts, shuffled. Raises
    DataError if the data cannot be read or has no text.
    """
    tokenizer = bundle_tokenizer(bundle)
    if data is None:
        cases = [case for case in bundle.golden_cases() if case.text.strip()]
        texts = [case.text for case in cases]
        paired = any(case.text_pair for case in cases)
        pairs = [case.text_pair or "" for case in cases] if paired else None
        dataset = GOLDEN
    else:
        task = bundle_task(bundle)
        table = task.read(data, columns=columns, targets=False)
        # The rows with a text; a file of empty ones is what it is.
        rows = [row for row, text in enumerate(table.texts) if text.strip()]
        table = table.take(rows or list(range(len(table))))
        texts, pairs = list(table.texts), list(table.pairs) if table.pairs else None
        pairs = pairs if task.takes_pairs else None
        dataset = Path(data).name
    chosen = _sample(list(range(len(texts))), count, seed)
    texts = [texts[row] for row in chosen]
    pairs = None if pairs is None else [pairs[row] for row in chosen]
    return Texts(
        dataset=dataset,
        texts=tuple(texts),
        pairs=None if pairs is None else tuple(pairs),
        encodings=tuple(tokenizer.encode(texts, pairs, max_length=length)),
        pad_id=tokenizer.info.pad_token_id,
    )


def make_inputs(
    texts: Texts,
    names: Collection[str],
    *,
    length: int,
    batch: int = 1,
    fit: Callable[[int], int] | None = None,
    vocabulary: int | None = None,
    types: int = 2,
) -> InputSet:
    """Pad the texts to `length` tokens for a model with inputs `names`.

    batch: texts per inference; the last batch is filled up with the first texts. fit: padded length
    for a number of tokens, if texts are to be as short as possible. vocabulary, types: sizes for a
    model with another tokenizer; ids are taken modulo these, since latency depends on the length of
    an input, not on its ids.
    Raises ConfigError for a model with an input of an unknown name.
    """
    known = {"input_ids", "attention_mask", "token_type_ids"}
    for name in names:
        if name not in known:
            raise ConfigError(f"cannot time a model with an input called '{name}'")
    count = len(texts.encodings)
    feeds = []
    for start in range(0, count, batch):
        encodings = [texts.encodings[i % count] for i in range(start, start + batch)]
        longest = max(map(len, encodings))
        size = length if fit is None else min(length, fit(longest))
        feed = pad(encodings, size, inputs=list(names), pad_id=texts.pad_id)
        if vocabulary:
            feed["input_ids"] %= vocabulary
        if "token_type_ids" in feed:
            feed["token_type_ids"] %= max(1, types)
        feeds.append(feed)
    lengths = tuple(min(len(encoding), length) for encoding in texts.encodings)
    return InputSet(texts.dataset, tuple(feeds), lengths, "fixed" if fit is None else "shortest")


def _sample(values: list[T], count: int | None, seed: int) -> list[T]:
    if count is not None and len(values) <= count:
        return values
    # Shuffled even when all are taken: a file may begin with its longest texts.
    return random.Random(seed).sample(values, len(values) if count is None else count)
