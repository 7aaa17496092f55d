from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from distill.losses.layer_map import pair_layers, spread, transport
from edge.errors import ConfigError


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [
        (6, 12, (0, 2, 4, 7, 9, 11)),
        (3, 12, (0, 6, 11)),
        (2, 6, (0, 5)),
        (3, 6, (0, 3, 5)),
        (1, 6, (0,)),
        (4, 4, (0, 1, 2, 3)),
    ],
)
def test_spread(count: int, layers: int, expected: tuple[int, ...]) -> None:
    assert spread(count, layers) == expected


def test_spread_never_repeats_a_layer() -> None:
    for layers in range(1, 25):
        for count in range(1, layers + 1):
            assert len(set(spread(count, layers))) == count


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("uniform", ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12))),
        ("skip", ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))),
        ("last", ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))),
        (((-1, -1), (1, 3)), ((6, 12), (1, 3))),
    ],
)
def test_pairs_of_a_6_layer_student_and_a_12_layer_teacher(
    rule: str | tuple[tuple[int, int], ...], expected: tuple[tuple[int, int], ...]
) -> None:
    assert pair_layers(rule, 6, 12) == expected


@pytest.mark.parametrize(
    ("rule", "student", "teacher", "message"),
    [
        (((4, 1),), 3, 6, "layer 4 does not exist: the student has layers 1 to 3"),
        (((1, 7),), 3, 6, "layer 7 does not exist: the teacher has layers 1 to 6"),
        (((0, 1),), 3, 6, "layer 0 does not exist"),
        (((1, -7),), 3, 6, "layer -7 does not exist"),
        ("skip", 1, 6, "leaves nothing to match in a student of 1 layer"),
        ("last", 6, 3, "needs a teacher as deep as the student"),
    ],
)
def test_impossible_pairs(
    rule: str | tuple[tuple[int, int], ...], student: int, teacher: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pair_layers(rule, student, teacher)


def test_more_layers_than_there_are() -> None:
    with pytest.raises(ConfigError, match="4 layers cannot be taken from 3"):
        spread(4, 3)


def test_uniform_is_tinybert_s_map_of_attention() -> None:
    """Its layer (i + 1) k - 1, counted from 0, is layer i k counted from 1."""
    for student, k in ((4, 3), (6, 2), (3, 4)):
        from_0 = [(i, (i + 1) * k - 1) for i in range(student)]
        expected = tuple((s + 1, t + 1) for s, t in from_0)
        assert pair_layers("uniform", student, student * k) == expected


def test_transport_of_equal_depths_is_the_best_assignment() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        costs = random.random((4, 4))
        best = min(
            sum(costs[i, j] for i, j in enumerate(order)) / 4
            for order in itertools.permutations(range(4))
        )
        assert (transport(costs) * costs).sum() == pytest.approx(best)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_transport_against_a_search(scale: float) -> None:
    """2 layers with 3: each student layer holds 1/2, each teacher layer wants 1/3."""
    costs = np.asarray([[1.0, 5.0, 2.0], [4.0, 1.0, 1.5]])
    flow = transport(costs * scale)
    np.testing.assert_allclose(flow.sum(1), 1 / 2, atol=1e-9)
    np.testing.assert_allclose(flow.sum(0), 1 / 3, atol=1e-9)
    assert (flow >= 0).all()
    # Two free shares decide everything.
    best = math.inf
    steps = np.linspace(0, 1 / 3, 121)
    for a, b in itertools.product(steps, steps):
        first = np.asarray([a, b, 1 / 2 - a - b])
        plan = np.stack([first, 1 / 3 - first])
        if (plan >= -1e-9).all():
            best = min(best, float((plan * costs).sum()))
    assert (flow * costs).sum() == pytest.approx(best, rel=1e-6)


def test_transport_of_layers_that_are_all_alike() -> None:
    assert transport(np.zeros((2, 4))).sum() == pytest.approx(1)
