"""Which teacher layer each student layer starts from and learns from."""

from __future__ import annotations

from collections.abc import Callable

from edge.errors import ConfigError

Pairs = tuple[tuple[int, int], ...]


def spread(count: int, layers: int) -> tuple[int, ...]:
    """`count` of `layers` blocks, counted from 0, evenly, the first and the last included.

    6 of 12 gives 0, 2, 4, 7, 9, 11, as in DistilBERT (Sanh et al. 2019). One block is the first.
    Raises ConfigError unless 1 <= count <= layers.
    """
    if not 1 <= count <= layers:
        raise ConfigError(f"a student of {count} layers cannot be taken from {layers} layers")
    # Halves go up: of two middles, the deeper one carried more of a real teacher's accuracy.
    return tuple(int(i * (layers - 1) / max(count - 1, 1) + 0.5) for i in range(count))


def pair_layers(rule: str | Pairs, student: int, teacher: int) -> Pairs:
    """Pairs of (student layer, teacher layer); layers count from 1, a layer's output is meant.

    uniform: student layer i with teacher layer i * teacher / student, the last with the last.
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
