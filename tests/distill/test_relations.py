"""Losses inside a layer against loops in float64, each text alone and without padding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from distill.losses import distributions, relations

RANDOM = np.random.default_rng(5)
LENGTHS = (4, 2, 5)
B, L = len(LENGTHS), max(LENGTHS)
MASK = torch.tensor([[1] * n + [0] * (L - n) for n in LENGTHS])
VALID = relations.pair_mask(MASK)
Grid = Any


def random(*shape: int) -> tuple[Grid, torch.Tensor]:
    values = RANDOM.normal(size=shape)
    return values, torch.tensor(values, dtype=torch.float32)


def spoil(values: torch.Tensor, junk: float, axis: int) -> torch.Tensor:
    """The same with `junk` at padding along `axis`, counted after the batch axis."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = B, L
    return values.masked_fill(MASK.view(shape) == 0, junk)


def softmax(row: Grid) -> Grid:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def kl(student: Grid, teacher: Grid) -> float:
    p, q = softmax(teacher), softmax(student)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def real(found: torch.Tensor) -> list[list[float]]:
    """Values (B, L) of real tokens."""
    return [row[:n].tolist() for row, n in zip(found, LENGTHS, strict=True)]


def assert_close(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def test_attention_mse() -> None:
    (s, student), (t, teacher) = random(B, 2, L, L), random(B, 2, L, L)
    expected = [
        [float(np.mean((s[b, :, q, :n] - t[b, :, q, :n]) ** 2)) for q in range(n)]
        for b, n in enumerate(LENGTHS)
    ]
    assert_close(real(relations.attention_mse(student, teacher, VALID)), expected)


def test_attention_kl() -> None:
    (s, student), (t, teacher) = random(B, 2, L, L), random(B, 2, L, L)
    expected = [
        [(kl(s[b, 0, q, :n], t[b, 0, q, :n]) + kl(s[b, 1, q, :n], t[b, 1, q, :n])) / 2
         for q in range(n)]
        for b, n in enumerate(LENGTHS)
    ]  # fmt: skip
    assert_close(real(relations.attention_kl(student, teacher, VALID)), expected)


def joined(vectors: Grid, b: int, token: int) -> list[float]:
    """All units of a token, head after head."""
    return [float(unit) for head in vectors[b] for unit in head[token]]


def relation_rows(x: Grid, y: Grid, b: int, token: int, n: int, heads: int) -> list[list[float]]:
    """One row of scores a relation head, by sums over single units."""
    width = len(joined(x, b, token)) // heads
    rows = []
    for head in range(heads):
        units = range(head * width, (head + 1) * width)
        rows.append(
            [
                sum(joined(x, b, token)[u] * joined(y, b, other)[u] for u in units)
                / math.sqrt(width)
                for other in range(n)
            ]
        )
    return rows


@pytest.mark.parametrize(("heads", "own"), [(2, 2), (2, 1), (4, 2), (1, 2), (8, 1), (None, 2)])
def test_relation_kl(heads: int | None, own: int) -> None:
    """Models of other widths and head counts, cut into the same number of relation heads."""
    (qs, query_s), (ks, key_s) = random(B, own, L, 8 // own), random(B, own, L, 8 // own)
    (qt, query_t), (kt, key_t) = random(B, 2, L, 8), random(B, 2, L, 8)
    count = heads or 2
    expected = []
    for b, n in enumerate(LENGTHS):
        expected.append([])
        for token in range(n):
            ours = relation_rows(qs, ks, b, token, n, count)
            theirs = relation_rows(qt, kt, b, token, n, count)
            expected[b].append(sum(map(kl, ours, theirs)) / count)
    found = relations.relation_kl((query_s, key_s), (query_t, key_t), VALID, heads)
    assert_close(real(found), expected)


def test_relation_heads_never_mix_tokens() -> None:
    """Changing one token changes only that token's row of the heads."""
    _, vectors = random(1, 2, L, 6)
    changed = vectors.clone()
    changed[:, :, 3] += 1
    for heads in (1, 2, 3, 4, 6, 12):
        before, after = (relations.split_heads(v, heads) for v in (vectors, changed))
        assert before.shape == (1, heads, L, 12 // heads)
        differs = (before != after).any(-1).any(1)[0]
        assert differs.tolist() == [False, False, False, True, False]


def test_flow_mse() -> None:
    (s0, start_s), (s1, end_s) = random(B, L, 3), random(B, L, 4)
    (t0, start_t), (t1, end_t) = random(B, L, 3), random(B, L, 4)
    expected = []
    for b, n in enumerate(LENGTHS):
        total = 0.0
        for i in range(3):
            for j in range(4):
                ours = sum(s0[b, p, i] * s1[b, p, j] for p in range(n)) / n
                theirs = sum(t0[b, p, i] * t1[b, p, j] for p in range(n)) / n
                total += (ours - theirs) ** 2
        expected.append(total / 12)
    found = relations.flow_mse((start_s, end_s), (start_t, end_t), MASK)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_selectivity_is_the_mmd_of_neurons() -> None:
    """The three sums of kernels over pairs of neurons, as the definition has them."""
    (s, student), (t, teacher) = random(B, L, 3), random(B, L, 5)

    def kernel(x: Grid, y: Grid) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) ** 2

    def mean(a: Grid, b: Grid) -> float:
        return float(np.mean([[kernel(x, y) for y in b.T] for x in a.T]))

    expected = []
    for b, n in enumerate(LENGTHS):
        ours, theirs = s[b, :n], t[b, :n]
        expected.append(mean(ours, ours) + mean(theirs, theirs) - 2 * mean(ours, theirs))
    found = relations.selectivity_mmd(student, teacher, MASK)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


Inputs = list[torch.Tensor]
# Name: shapes of student and teacher tensors, which axes hold tokens, and the loss.
CASES: dict[str, tuple[list[tuple[int, ...]], tuple[int, ...], Callable[..., torch.Tensor]]] = {
    "attention_mse": ([(B, 2, L, L)], (2, 3), lambda s, t: relations.attention_mse(*s, *t, VALID)),
    "attention_kl": ([(B, 2, L, L)], (2, 3), lambda s, t: relations.attention_kl(*s, *t, VALID)),
    "relation_kl": (
        [(B, 2, L, 4), (B, 2, L, 4)],
        (2,),
        lambda s, t: relations.relation_kl(tuple(s), tuple(t), VALID, 4),
    ),
    "flow_mse": (
        [(B, L, 3), (B, L, 3)],
        (1,),
        lambda s, t: relations.flow_mse(tuple(s), tuple(t), MASK),
    ),
    "selectivity_mmd": ([(B, L, 3)], (1,), lambda s, t: relations.selectivity_mmd(*s, *t, MASK)),
}


def reduced(values: torch.Tensor) -> torch.Tensor:
    return distributions.masked_mean(values, MASK if values.ndim == 2 else None)


@pytest.mark.parametrize("name", CASES)
def test_padding_changes_nothing(name: str) -> None:
    shapes, axes, loss = CASES[name]
    student, teacher = ([random(*shape)[1] for shape in shapes] for _ in "st")
    plain = reduced(loss(student, teacher))
    for junk in (0.0, 37.0, -1e4):
        for axis in axes:
            student = [spoil(x, junk, axis) for x in student]
            teacher = [spoil(x, -junk, axis) for x in teacher]
        assert reduced(loss(student, teacher)).item() == pytest.approx(plain.item(), rel=1e-5)
    assert plain > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_real_tokens_of_the_student_alone(name: str) -> None:
    shapes, axes, loss = CASES[name]
    student, teacher = ([random(*shape)[1] for shape in shapes] for _ in "st")
    for axis in axes:
        student = [spoil(x, 1e4, axis) for x in student]
    for x in (*student, *teacher):
        x.requires_grad_()
    reduced(loss(student, teacher)).backward()
    for x in student:
        assert x.grad is not None and torch.isfinite(x.grad).all()
        assert x.grad.abs().sum() > 0
        for axis in axes:
            assert spoil(x.grad, 0.0, axis).equal(x.grad)
    assert all(x.grad is None for x in teacher)


@pytest.mark.parametrize("name", CASES)
def test_a_perfect_student_has_no_loss(name: str) -> None:
    shapes, _, loss = CASES[name]
    teacher = [random(*shape)[1] for shape in shapes]
    assert loss([x.clone() for x in teacher], teacher).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["flow_mse", "selectivity_mmd", "relation_kl"])
def test_states_of_zeros_have_a_finite_gradient(name: str) -> None:
    shapes, _, loss = CASES[name]
    student = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    reduced(loss(student, [torch.zeros(shape) for shape in shapes])).backward()
    assert all(torch.isfinite(x.grad).all() for x in student if x.grad is not None)


def test_autocast_does_not_lower_the_precision() -> None:
    _, states = random(B, L, 64)
    plain = relations.selectivity_mmd(states, states.flip(-1) + 0.1, MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = relations.selectivity_mmd(states, states.flip(-1) + 0.1, MASK)
    assert torch.equal(plain, cast)
