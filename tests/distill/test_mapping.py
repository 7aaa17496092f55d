from __future__ import annotations

import pytest

from distill.mapping import pair_layers, spread
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
