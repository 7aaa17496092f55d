"""How well predictions fit targets. Every function takes two arrays of n values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def accuracy(predicted: Array, target: Array) -> float:
    """Share of equal entries."""
    return float(np.mean(predicted == target))


def micro_f1(predicted: Array, target: Array) -> float:
    """F1 over all (sample, label) decisions; arrays of shape (n, labels) holding 0 and 1."""
    true = float(np.sum((predicted == 1) & (target == 1)))
    wrong = float(np.sum(predicted != target))
    return 2 * true / (2 * true + wrong) if true or wrong else 1.0


def pearson(predicted: Array, target: Array) -> float:
    """Linear correlation; 0 when either side is constant."""
    a = predicted.astype(np.float64) - predicted.mean(dtype=np.float64)
    b = target.astype(np.float64) - target.mean(dtype=np.float64)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def spearman(predicted: Array, target: Array) -> float:
    """Linear correlation of ranks, ties sharing their mean rank."""
    return pearson(_ranks(predicted), _ranks(target))


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
