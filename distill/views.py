"""Other texts that come with a row of a batch: one of the same class, or the row itself changed.

Each is chosen by seed, epoch and row alone, so a run that is continued sees what it would have
seen. Words stay whole, and the parts of a pair stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from distill.batches import Row, Samples
from distill.terms import Name
from edge.errors import ConfigError
from edge.tasks.base import Array
from edge.tokenization import Encoding

# The positions of a word's tokens.
Word = list[int]
_SHARE_MASKED = 0.25
_WINDOW = 4


class ViewedSamples(Samples):
    """Rows with further inputs, NAME.input_ids and so on for each of `views`, a name to its kind.

    Raises ConfigError for a kind that needs a mask token where the tokenizer has none.
    """

    def __init__(self, samples: Samples, views: Mapping[Name, str], *, seed: int) -> None:
        super().__init__(samples.encodings, samples.targets, samples._tokenizer)
        if "mask" in views.values() and self._tokenizer.info.mask_token_id is None:
            raise ConfigError("texts cannot be masked: the tokenizer has no mask token")
        self._samples, self._views = samples, views
        self._seed, self._epoch = seed, 0
        self._classes = _classes(samples.targets) if "partner" in views.values() else []

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._samples.set_epoch(epoch)

    def __getitem__(self, index: int) -> Row:
        return self._samples[index]

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        batch = self._samples.collate(rows)
        for number, (name, kind) in enumerate(self._views.items()):
            encodings = [self.view(kind, number, index) for index, _, _ in rows]
            columns = self._tokenizer.pad(encodings, max(map(len, encodings)))
            for key, column in columns.items():
                batch[f"{name}.{key}"] = torch.from_numpy(column).long()
        return batch

    def view(self, kind: str, number: int, row: int) -> Encoding:
        """The text that comes with a row in this epoch as view `number`."""
        random = np.random.default_rng((self._seed, self._epoch, row, number))
        if kind == "partner":
            others = self._classes[row]
            others = others[others != row]
            return self.encodings[int(random.choice(others)) if len(others) else row]
        encoding = self.encodings[row]
        if kind == "mask":
            mask = self._tokenizer.info.mask_token_id
            assert mask is not None
            return _masked(encoding, mask, random)
        return _reordered(encoding, _ORDERS[kind], random)


def view_inputs(inputs: Mapping[str, Tensor], name: Name) -> dict[str, Tensor]:
    """The inputs of a view among those of a batch."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value for key, value in inputs.items() if key.startswith(prefix)
    }


def _classes(targets: Array | list[Array]) -> list[Array]:
    """For each row, the rows with its label or labels; itself alone where it has none."""
    keys = [None if _is_missing(target) else target.tobytes() for target in np.asarray(targets)]
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        if key is not None:
            rows.setdefault(key, []).append(row)
    groups = {key: np.asarray(found) for key, found in rows.items()}
    return [np.asarray([row]) if k is None else groups[k] for row, k in enumerate(keys)]


def _is_missing(target: Array) -> bool:
    return bool(np.any(np.isnan(target) | (target < 0)))


def _words(encoding: Encoding) -> list[list[Word]]:
    """The words of each part, in their order."""
    found: dict[int, list[Word]] = {}
    for part, _, positions in encoding.runs():
        if part is not None:
            found.setdefault(part, []).append(positions)
    return list(found.values())


def _masked(encoding: Encoding, mask: int, random: np.random.Generator) -> Encoding:
    """A quarter of each part's words hidden, one at least."""
    ids = list(encoding.input_ids)
    for words in _words(encoding):
        count = max(1, round(_SHARE_MASKED * len(words)))
        for index in random.choice(len(words), count, replace=False):
            for position in words[index]:
                ids[position] = mask
    return Encoding(ids, encoding.token_type_ids)


def _reordered(
    encoding: Encoding,
    order: Callable[[int, np.random.Generator], list[int]],
    random: np.random.Generator,
) -> Encoding:
    ids = list(encoding.input_ids)
    for words in _words(encoding):
        places = [position for word in words for position in word]
        sources = [position for index in order(len(words), random) for position in words[index]]
        for place, source in zip(places, sources, strict=True):
            ids[place] = encoding.input_ids[source]
    return Encoding(ids, encoding.token_type_ids)


def _swap(count: int, _: np.random.Generator) -> list[int]:
    """The second half before the first."""
    return [*range(count // 2, count), *range(count // 2)]


def _shuffle(count: int, random: np.random.Generator) -> list[int]:
    """Words trade places with some of the nearest three."""
    return [
        start + int(i)
        for start in range(0, count, _WINDOW)
        for i in random.permutation(min(_WINDOW, count - start))
    ]


_ORDERS: dict[str, Callable[[int, np.random.Generator], list[int]]] = {
    "swap": _swap,
    "shuffle": _shuffle,
}
