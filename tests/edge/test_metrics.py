"""Metrics against values worked out by hand or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edge import metrics


def test_accuracy_and_micro_f1_by_hand() -> None:
    assert metrics.accuracy(np.array([1, 0, 2, 2]), np.array([1, 1, 2, 0])) == 0.5
    predicted = np.array([[1, 0, 1], [0, 1, 0]])
    target = np.array([[1, 1, 0], [0, 1, 0]])
    # 2 right, 1 missed, 1 too many: precision 2/3, recall 2/3.
    assert metrics.micro_f1(predicted, target) == pytest.approx(2 / 3)


def test_correlations_equal_scipy() -> None:
    source = np.random.default_rng(0)
    a = source.normal(size=50).round(1)
    b = (a + source.normal(size=50)).round(1)
    assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert metrics.pearson(np.ones(5), b[:5]) == 0.0
