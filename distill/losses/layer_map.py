"""Which teacher layer each student layer starts from and learns from."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from edge.errors import ConfigError

Pairs = tuple[tuple[int, int], ...]
# The rule whose pairs follow from the states themselves, while training.
DYNAMIC = "emd"


def spread(count: int, layers: int) -> tuple[int, ...]:
    """`count` of `layers` blocks, counted from 0, evenly, the first and the last included.

    6 of 12 gives 0, 2, 4, 7, 9, 11, as in DistilBERT (Sanh et al. 2019). One block is the first.
    Raises ConfigError unless 1 <= count <= layers.
    """
    if not 1 <= count <= layers:
        raise ConfigError(f"a student of {count} layers cannot be taken from {layers} layers")
    # Halves go up: of two middles, the deeper one carried more of a real teacher's accuracy.
    return tuple(int(i * (layers - 1) / max(count - 1, 1) + 0.5) for i in range(count))


def part_of(layers: int, part: int | str) -> int:
    """How many of `layers` a number or a share such as 1/2 is, rounded down.

    Raises ConfigError for more than there are.
    """
    count = part if isinstance(part, int) else int(Fraction(part) * layers)
    if count > layers:
        raise ConfigError(f"{part} of {layers} layers are more than there are: name fewer")
    return count


def pair_layers(rule: str | Pairs, student: int, teacher: int) -> Pairs:
    """Pairs of (student layer, teacher layer); layers count from 1, a layer's output is meant.

    uniform: student layer i with teacher layer i * teacher / student, the last with the last. It
    is TinyBERT's for hidden states and for attention: the same layer, whose attention that paper
    counts from 0 and so calls (i + 1) k - 1 where it calls its output i k.
    skip: the same without the last, which the logits teach already (Sun et al. 2019, PKD-skip).
    last: the student's layers with the teacher's last ones, the final one left out (PKD-last).
    Explicit pairs may count from the end, -1 being the last. Raises ConfigError for a layer that
    does not exist, or when nothing is left to match.
    """
    if isinstance(rule, str):
        pairs = _RULES[rule](student, teacher)
    else:
        pairs = tuple(
            (_layer(s, student, "student"), _layer(t, teacher, "teacher")) for s, t in rule
        )
    if not pairs:
        raise ConfigError(
            f"layers: {rule} leaves nothing to match in a student of {student} layer: "
            "use layers: uniform"
        )
    for s, t in pairs:
        if t < 1:
            raise ConfigError(f"layers: {rule} needs a teacher as deep as the student ({student})")
        assert s >= 1
    return pairs


def transport(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of each student layer goes with each teacher layer, (S, T) to (S, T), in sum 1.

    The plan of the Earth Mover's Distance: of all that give every layer of a side the same share,
    the one of least cost. costs: the distance of each student layer to each teacher layer.
    Source: Li et al. 2020, "BERT-EMD", 3.2, with equal weights of layers.
    """
    from scipy.optimize import linprog

    student, teacher = costs.shape
    rows = np.kron(np.eye(student), np.ones(teacher))
    columns = np.kron(np.ones(student), np.eye(teacher))
    shares = [1 / student] * student + [1 / teacher] * teacher
    # Costs in units of their mean: the solver's tolerances are absolute.
    scaled = costs.ravel() / max(float(costs.mean()), np.finfo(np.float64).tiny)
    found = linprog(scaled, A_eq=np.vstack([rows, columns]), b_eq=shares, method="highs-ds")
    flow: npt.NDArray[np.float64] = np.maximum(found.x, 0.0).reshape(student, teacher)
    return flow


def _uniform(student: int, teacher: int) -> Pairs:
    return tuple((i, round(i * teacher / student)) for i in range(1, student + 1))


def _skip(student: int, teacher: int) -> Pairs:
    return _uniform(student, teacher)[:-1]


def _last(student: int, teacher: int) -> Pairs:
    return tuple((i, teacher - student + i) for i in range(1, student))


_RULES: dict[str, Callable[[int, int], Pairs]] = {
    "uniform": _uniform,
    "skip": _skip,
    "last": _last,
}


def _layer(index: int, layers: int, owner: str) -> int:
    found = index + layers + 1 if index < 0 else index
    if not 1 <= found <= layers:
        raise ConfigError(f"layer {index} does not exist: the {owner} has layers 1 to {layers}")
    return found
