"""What a teacher's modules see when it reads real texts: means and covariances of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.data import Table

# Enough tokens that the covariance of a wide model's states has full rank.
_ROWS = 256
_BATCH_SIZE = 32
_MAX_LENGTH = 128


class Moments:
    """Count, mean and (co)variance of vectors, added up in 64 bits.

    full: the covariance (N, N); otherwise the variance of each unit (N,).
    """

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._count = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Tensor) -> None:
        """Rows of shape (M, N)."""
        values = values.double()
        self._count += len(values)
        self._sum = self._sum + values.sum(0)
        self._squares = self._squares + (
            values.T @ values if self._full else values.square().sum(0)
        )

    @property
    def mean(self) -> Tensor:
        return self._sum / self._count

    @property
    def spread(self) -> Tensor:
        """Covariance or variances."""
        mean = self.mean
        return self._squares / self._count - (mean.outer(mean) if self._full else mean.square())


class Line:
    """The straight line of least squares from each unit of x to the same unit of y."""

    def __init__(self) -> None:
        self._x, self._y, self._both = (Moments(full=False) for _ in range(3))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows of shape (M, N), both."""
        self._x.add(x)
        self._y.add(y)
        self._both.add(x + y)

    def fit(self) -> tuple[Tensor, Tensor]:
        """Slope and intercept of each unit, (N,) both."""
        # var(x + y) = var(x) + var(y) + 2 cov(x, y)
        shared = (self._both.spread - self._x.spread - self._y.spread) / 2
        slope = shared / self._x.spread.clamp(min=1e-12)
        return slope, self._y.mean - slope * self._x.mean


def calibration_batches(table: Table, tokenizer: Any, limit: int) -> list[dict[str, Tensor]]:
    """Some texts of a data file as a model reads them; always the same ones.

    limit: the most tokens the model can read.
    """
    order = np.random.default_rng(0).permutation(len(table.texts))[:_ROWS].tolist()
    order.sort(key=lambda row: len(table.texts[row]))
    batches = []
    for start in range(0, len(order), _BATCH_SIZE):
        rows = order[start : start + _BATCH_SIZE]
        pairs = [table.pairs[row] for row in rows] if table.pairs is not None else None
        texts = [table.texts[row] for row in rows]
        length = min(_MAX_LENGTH, limit)
        encoded = tokenizer(
            texts, pairs, truncation=True, max_length=length, padding=True, return_tensors="pt"
        )
        batches.append(dict(encoded))
    return batches


# What is told of a module: the rows it read and the rows it gave, without padding.
Watcher = Callable[[Tensor, Tensor], None]


def watch(
    model: Any, batches: Iterable[Mapping[str, Tensor]], watchers: Mapping[str, Watcher]
) -> None:
    """Run the model and tell `watchers`, by module name, what each module reads and gives."""
    from edge.models.inputs import accepted

    seen: list[Tensor] = []
    with _hooked(model, watchers, seen), torch.no_grad():
        for batch in batches:
            seen[:] = [batch["attention_mask"].bool()]
            model(**accepted(model, batch))


@contextmanager
def _hooked(model: Any, watchers: Mapping[str, Watcher], mask: Sequence[Tensor]) -> Iterator[None]:
    def real(values: Tensor) -> Tensor:
        return values[mask[0]] if values.ndim == 3 else values

    with ExitStack() as stack:
        for name, tell in watchers.items():

            def hook(_: Any, given: Any, output: Tensor, tell: Watcher = tell) -> None:
                tell(real(given[0]), real(output))

            handle = model.get_submodule(name).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield
