"""How rows are read: in whose tokens, and what changes of them from epoch to epoch.

A data set has a view for each reader; see `distill.data.batches.Samples`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor

from distill.recipe.terms import Name
from edge.errors import ConfigError
from edge.tasks.base import Array
from edge.tokenization import Encoding, Tokenizer

# The entry of a batch that says which inputs of a view it holds.
ROWS = "rows"
# The positions of a word's tokens.
Word = list[int]
_SHARE_MASKED = 0.25
_WINDOW = 4
Random = np.random.Generator


class Changing(Sequence[Encoding]):
    """Encodings that are drawn again in every epoch, made of other ones.

    Each draw follows from seed, epoch, row and `stream` alone, so a run that is continued sees
    what it would have seen. lengths: (N,), near theirs, the same in every epoch.
    """

    def __init__(
        self,
        source: Sequence[Encoding],
        *,
        seed: int,
        stream: tuple[int, ...] = (),
        lengths: Array | None = None,
    ) -> None:
        self.source = source
        self.lengths = lengths_of(source) if lengths is None else lengths
        self._seed, self._stream, self._epoch = seed, stream, 0

    @abstractmethod
    def draw(self, row: int, random: Random) -> Encoding:
        """The encoding of a row in this epoch; `random` is the row's own."""

    def set_epoch(self, epoch: int) -> None:
        """Draw again, also what these encodings are made of."""
        self._epoch = epoch
        set_epoch(self.source, epoch)

    def random(self, row: int) -> Random:
        """What decides the draw of a row in this epoch."""
        return np.random.default_rng((self._seed, self._epoch, row, *self._stream))

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Encoding: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Encoding]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Encoding | Sequence[Encoding]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index.__index__()
        return self.draw(row, self.random(row))


class View:
    """What one reader is given: encodings in the tokens of its own tokenizer, which pads them."""

    def __init__(self, encodings: Sequence[Encoding], tokenizer: Tokenizer) -> None:
        self.encodings, self.tokenizer = encodings, tokenizer

    def __len__(self) -> int:
        return len(self.encodings)

    @property
    def lengths(self) -> Array:
        """The tokens of each encoding, (N,)."""
        return lengths_of(self.encodings)

    def set_epoch(self, epoch: int) -> None:
        """Told when an epoch starts."""
        set_epoch(self.encodings, epoch)

    def batch(
        self, indices: Sequence[int], encodings: Sequence[Encoding] | None = None
    ) -> dict[str, Tensor]:
        """Model inputs (B, L) padded to the longest, and `rows`, the B `indices`.

        encodings: those of `indices`, where they are there already.
        """
        given = [self.encodings[index] for index in indices] if encodings is None else encodings
        columns = self.tokenizer.pad(given, max(map(len, given)))
        batch = {name: torch.from_numpy(column).long() for name, column in columns.items()}
        return {**batch, ROWS: torch.as_tensor(indices)}


def view_inputs(inputs: Mapping[str, Tensor], name: Name) -> dict[str, Tensor]:
    """The inputs of a view among those of a batch."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value for key, value in inputs.items() if key.startswith(prefix)
    }


def set_epoch(encodings: Sequence[Encoding], epoch: int) -> None:
    """Tell encodings that an epoch starts, where they change."""
    if isinstance(encodings, Changing):
        encodings.set_epoch(epoch)


def lengths_of(encodings: Sequence[Encoding]) -> Array:
    """The tokens of each encoding, (N,); of changing ones, about as many in every epoch."""
    if isinstance(encodings, Changing):
        return encodings.lengths
    return np.asarray([len(encoding) for encoding in encodings])


def companion_views(
    own: View, targets: Array, kinds: Mapping[Name, str], *, seed: int
) -> dict[Name, View]:
    """Texts that come with each row of `own` for companions, a name to its kind.

    partner: another text of the same class by `targets`; mask, shuffle, swap: the row's own text
    changed. Words stay whole, and the parts of a pair stay apart.
    Raises ConfigError for a kind that needs a mask token where the tokenizer has none.
    """
    mask = own.tokenizer.info.mask_token_id
    if "mask" in kinds.values() and mask is None:
        raise ConfigError("texts cannot be masked: the tokenizer has no mask token")
    views: dict[Name, View] = {}
    for number, (name, kind) in enumerate(kinds.items()):
        texts: Changing
        if kind == "partner":
            texts = _Partners(own.encodings, targets, seed=seed, number=number)
        elif kind == "mask":
            assert mask is not None
            texts = _Masked(own.encodings, mask, seed=seed, number=number)
        else:
            texts = _Reordered(own.encodings, _ORDERS[kind], seed=seed, number=number)
        views[name] = View(texts, own.tokenizer)
    return views


class _Partners(Changing):
    """For each row another one of the same class, or the row itself where there is none."""

    def __init__(
        self, source: Sequence[Encoding], targets: Array, *, seed: int, number: int
    ) -> None:
        super().__init__(source, seed=seed, stream=(number,))
        self._classes = _classes(targets)

    def draw(self, row: int, random: Random) -> Encoding:
        others = self._classes[row]
        others = others[others != row]
        return self.source[int(random.choice(others)) if len(others) else row]


class _Masked(Changing):
    """A quarter of each part's words masked, one at least."""

    def __init__(self, source: Sequence[Encoding], mask: int, *, seed: int, number: int) -> None:
        super().__init__(source, seed=seed, stream=(number,))
        self._mask = mask

    def draw(self, row: int, random: Random) -> Encoding:
        encoding = self.source[row]
        ids = list(encoding.input_ids)
        for words in _words(encoding):
            count = max(1, round(_SHARE_MASKED * len(words)))
            for index in random.choice(len(words), count, replace=False):
                for position in words[index]:
                    ids[position] = self._mask
        return Encoding(ids, encoding.token_type_ids)


class _Reordered(Changing):
    """The words of each part in another order."""

    def __init__(
        self,
        source: Sequence[Encoding],
        order: Callable[[int, Random], list[int]],
        *,
        seed: int,
        number: int,
    ) -> None:
        super().__init__(source, seed=seed, stream=(number,))
        self._order = order

    def draw(self, row: int, random: Random) -> Encoding:
        encoding = self.source[row]
        ids = list(encoding.input_ids)
        for words in _words(encoding):
            places = [position for word in words for position in word]
            order = self._order(len(words), random)
            sources = [position for index in order for position in words[index]]
            for place, source in zip(places, sources, strict=True):
                ids[place] = encoding.input_ids[source]
        return Encoding(ids, encoding.token_type_ids)


def _classes(targets: Array) -> list[Array]:
    """For each row, the rows with its label or labels; itself alone where it has none."""
    keys = [None if _is_missing(target) else target.tobytes() for target in np.asarray(targets)]
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        if key is not None:
            rows.setdefault(key, []).append(row)
    groups = {key: np.asarray(members) for key, members in rows.items()}
    return [np.asarray([row]) if k is None else groups[k] for row, k in enumerate(keys)]


def _is_missing(target: Array) -> bool:
    return bool(np.any(np.isnan(target) | (target < 0)))


def _words(encoding: Encoding) -> list[list[Word]]:
    """The words of each part, in their order."""
    parts: dict[int, list[Word]] = {}
    for part, _, positions in encoding.runs():
        if part is not None:
            parts.setdefault(part, []).append(positions)
    return list(parts.values())


def _swap(count: int, _: Random) -> list[int]:
    """The second half before the first."""
    return [*range(count // 2, count), *range(count // 2)]


def _shuffle(count: int, random: Random) -> list[int]:
    """Words trade places with some of the nearest three."""
    return [
        start + int(i)
        for start in range(0, count, _WINDOW)
        for i in random.permutation(min(_WINDOW, count - start))
    ]


_ORDERS: dict[str, Callable[[int, Random], list[int]]] = {
    "swap": _swap,
    "shuffle": _shuffle,
}
