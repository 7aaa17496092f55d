"""Every loss against a slow version written with loops and `math` alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from distill.losses import distributions

RANDOM = np.random.default_rng(3)


def tensors(*shape: int) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
    s, t = RANDOM.normal(size=shape) * 3, RANDOM.normal(size=shape) * 3
    return s, t, torch.tensor(s, dtype=torch.float32), torch.tensor(t, dtype=torch.float32)


def softmax(row: Any, temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softmax_kl(temperature: float) -> None:
    s, t, student, teacher = tensors(5, 4)
    expected = []
    for student_row, teacher_row in zip(s, t, strict=True):
        p, q = softmax(teacher_row, temperature), softmax(student_row, temperature)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected.append(temperature**2 * kl)
    found = distributions.softmax_kl(student, teacher, temperature)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_kl_in_slices(
    monkeypatch: pytest.MonkeyPatch, *, masked: bool, dtype: torch.dtype
) -> None:
    """Some rows at a time and with a gradient of its own: as PyTorch has it of the whole."""
    monkeypatch.setitem(distributions._SLICE, "cpu", 50)
    source = torch.Generator().manual_seed(0)
    student = torch.randn(3, 7, 20, generator=source).to(dtype).requires_grad_()
    teacher = torch.randn(3, 7, 20, generator=source).to(dtype).requires_grad_()
    weights = torch.rand(3, 7, generator=source)
    valid = torch.rand(7, 20, generator=source) > 0.3 if masked else None

    s, t = (x.float() / 2 for x in (student, teacher.detach()))
    if valid is not None:
        s, t = (x.masked_fill(~valid, -1e30) for x in (s, t))
    divergence = torch.nn.functional.kl_div(
        s.log_softmax(-1), t.log_softmax(-1), log_target=True, reduction="none"
    )
    expected = 4 * divergence.sum(-1)
    (slope,) = torch.autograd.grad((expected * weights).sum(), student)
    found = distributions.softmax_kl(student, teacher, 2.0, valid)
    (found * weights).sum().backward()

    assert found.dtype == torch.float32 and teacher.grad is None
    torch.testing.assert_close(found, expected)
    assert student.grad is not None and student.grad.dtype == dtype
    # Rounded once more in bfloat16, whose numbers are 2^-8 apart.
    torch.testing.assert_close(
        student.grad, slope, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-6
    )


def test_tokens_without_a_label_are_not_looked_at() -> None:
    _, _, logits, _ = tensors(3, 4)
    logits[1] = math.nan
    logits.requires_grad_()
    values = distributions.cross_entropy(logits, torch.tensor([2, -100, 0]))
    values.sum().backward()
    assert values[1] == 0 and (values[[0, 2]] > 0).all()
    assert logits.grad is not None
    assert (logits.grad[1] == 0).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sigmoid_kl(temperature: float) -> None:
    s, t, student, teacher = tensors(5, 4)
    expected = []
    for student_row, teacher_row in zip(s, t, strict=True):
        total = 0.0
        for a, b in zip(student_row, teacher_row, strict=True):
            q, p = (1 / (1 + math.exp(-x / temperature)) for x in (a, b))
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        expected.append(temperature**2 * total)
    found = distributions.sigmoid_kl(student, teacher, temperature)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_gradients_keep_their_size_at_high_temperature() -> None:
    """T^2 at work: at high T the gradient tends to (s - t) / C, and does not vanish."""
    _, _, student, teacher = tensors(6, 4)
    student = (student - student.mean(-1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(-1, keepdim=True)
    distributions.softmax_kl(student, teacher, 1000.0).sum().backward()
    assert student.grad is not None
    expected = (student - teacher).detach() / 4
    torch.testing.assert_close(student.grad, expected, rtol=0.02, atol=0.02)


def test_logits_mse() -> None:
    s, t, student, teacher = tensors(5, 4)
    expected = [
        sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 4 for x, y in zip(s, t, strict=True)
    ]
    assert distributions.logits_mse(student, teacher).tolist() == pytest.approx(expected, rel=1e-4)


def test_cross_entropy_leaves_out_ignored_labels() -> None:
    s, _, student, _ = tensors(3, 4)
    found = distributions.cross_entropy(student, torch.tensor([2, -100, 0]))
    expected = [-math.log(softmax(s[0], 1)[2]), 0.0, -math.log(softmax(s[2], 1)[0])]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_cross_entropy_of_each_token() -> None:
    s, _, student, _ = tensors(2, 3, 4)
    labels = torch.tensor([[1, -100, 3], [-100, 0, 0]])
    found = distributions.cross_entropy(student, labels)
    for b, i in ((0, 0), (0, 2), (1, 1), (1, 2)):
        expected = -math.log(softmax(s[b, i], 1)[labels[b, i]])
        assert found[b, i].item() == pytest.approx(expected, rel=1e-4)
    assert found[0, 1] == found[1, 0] == 0


VALID = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()


LABELS = torch.tensor([0, 2, 3, -100])
MASKED_LOSSES: dict[str, Any] = {
    "kl": lambda s, t, labels, valid: distributions.softmax_kl(s, t, 2.0, valid),
    "mse": lambda s, t, labels, valid: distributions.logits_mse(s, t, valid),
    "labels": lambda s, t, labels, valid: distributions.cross_entropy(s, labels, valid),
}


@pytest.mark.parametrize("junk", [0.0, 1e4, -3.4e38, math.inf, -math.inf])
@pytest.mark.parametrize("name", MASKED_LOSSES)
def test_classes_that_are_left_out_may_hold_anything(name: str, junk: float) -> None:
    """As if they were not there, in values and in gradients; a row without any is 0."""
    loss = MASKED_LOSSES[name]
    _, _, *pair = tensors(4, 4)
    student, teacher = (x.masked_fill(~VALID, junk) for x in pair)
    student.requires_grad_()
    values = loss(student, teacher, LABELS, VALID)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert torch.isfinite(gradient).all()
    assert (gradient[~VALID] == 0).all() and (gradient[1][VALID[1]] != 0).all()
    assert values[3] == 0
    for row in range(3):
        s, t = (x[row, VALID[row]][None] for x in pair)
        label = VALID[row, : LABELS[row]].sum()[None]
        alone = loss(s, t, label, None)[0].item()
        assert values[row].item() == pytest.approx(alone, rel=1e-4, abs=1e-6)


def test_margin_mse() -> None:
    """Every pair of candidates by loops; the level and nothing but the level is free."""
    s, t, student, teacher = tensors(2, 3, 1)
    expected = [
        [
            sum(((s[g, i] - s[g, j]) - (t[g, i] - t[g, j])).item() ** 2 for j in range(3)) / 2
            for i in range(3)
        ]
        for g in range(2)
    ]
    np.testing.assert_allclose(distributions.margin_mse(student, teacher), expected, rtol=1e-4)
    assert distributions.margin_mse(teacher + 7.0, teacher).abs().max() < 1e-9
    assert distributions.margin_mse(teacher * 2, teacher).min() > 0.01
    pair = distributions.margin_mse(student[:, :2], teacher[:, :2])
    assert torch.equal(pair[:, 0], pair[:, 1])


def test_info_nce() -> None:
    s, t, student, teacher = tensors(4, 5)
    expected = []
    for i in range(4):
        row = [float(s[i] @ t[j] / np.linalg.norm(s[i]) / np.linalg.norm(t[j])) for j in range(4)]
        expected.append(-math.log(softmax(row, 0.2)[i]))
    assert distributions.info_nce(student, teacher, 0.2).tolist() == pytest.approx(
        expected, rel=1e-4
    )
    assert distributions.info_nce(teacher, teacher, 0.01).max() < 0.1


@pytest.mark.parametrize("name", [*distributions.STATE_LOSSES, "info_nce"])
def test_states_of_zeros_have_a_finite_gradient(name: str) -> None:
    student, teacher = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4)
    {**distributions.STATE_LOSSES, "info_nce": distributions.info_nce}[name](
        student, teacher
    ).sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_a_mask_that_selects_nothing_gives_0() -> None:
    values = torch.tensor([1.0, math.nan])
    assert distributions.masked_mean(values, torch.zeros(2)).item() == 0


def test_binary_cross_entropy() -> None:
    s, _, student, _ = tensors(3, 2)
    labels = [[1, 0], [0, 0], [1, 1]]
    expected = [
        sum(math.log1p(math.exp(-x if y else x)) for x, y in zip(row, answers, strict=True)) / 2
        for row, answers in zip(s, labels, strict=True)
    ]
    found = distributions.binary_cross_entropy(student, torch.tensor(labels))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_squared_error() -> None:
    found = distributions.squared_error(torch.tensor([[1.0], [4.0]]), torch.tensor([3.0, 3.5]))
    assert found.tolist() == [4.0, 0.25]


def _standardised(x: Any) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((a - mean) ** 2 for a in x) / len(x)
    return [(a - mean) / math.sqrt(variance + 1e-5) for a in x]


def oracle_state(name: str, s: Any, t: Any) -> float:
    dot = sum(a * b for a, b in zip(s, t, strict=True))
    size_s, size_t = (math.sqrt(sum(a * a for a in x)) for x in (s, t))
    if name == "mse":
        return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
    if name == "cosine":
        return 1 - dot / size_s / size_t
    if name == "layer_normed_mse":
        s, t = (_standardised(x) for x in (s, t))
        return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
    return sum((a / size_s - b / size_t) ** 2 for a, b in zip(s, t, strict=True))


@pytest.mark.parametrize("name", ["mse", "normalized_mse", "layer_normed_mse", "cosine"])
def test_state_losses(name: str) -> None:
    s, t, student, teacher = tensors(2, 3, 5)
    expected = [[oracle_state(name, s[b, i], t[b, i]) for i in range(3)] for b in range(2)]
    found = distributions.STATE_LOSSES[name](student, teacher)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        *(
            distributions.softmax_kl,
            distributions.sigmoid_kl,
            distributions.logits_mse,
            distributions.info_nce,
        ),
        lambda s, t: distributions.margin_mse(s[None], t[None]),
        *distributions.STATE_LOSSES.values(),
    ],
)
def test_no_gradient_reaches_the_teacher(loss: distributions.Loss) -> None:
    _, _, student, teacher = tensors(3, 4)
    student.requires_grad_()
    teacher.requires_grad_()
    loss(student, teacher).sum().backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize(
    "loss",
    [
        distributions.softmax_kl,
        distributions.sigmoid_kl,
        distributions.logits_mse,
        *distributions.STATE_LOSSES.values(),
    ],
)
def test_a_perfect_student_has_no_loss(loss: distributions.Loss) -> None:
    _, _, student, _ = tensors(3, 4)
    assert loss(student, student.clone()).abs().max() < 1e-5


def test_masked_mean_counts_what_the_mask_selects() -> None:
    values = torch.tensor([[1.0, 2.0, math.inf], [4.0, math.nan, -math.inf]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert distributions.masked_mean(values, mask).item() == pytest.approx(7 / 3)
    assert distributions.masked_mean(values, mask, torch.tensor(14.0)).item() == pytest.approx(0.5)
    assert distributions.masked_mean(values[:1, :2]).item() == 1.5


def test_masked_values_send_no_gradient() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    distributions.masked_mean(values, torch.tensor([1, 0])).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 0.0]


def test_half_precision_is_computed_in_float32() -> None:
    _, _, student, teacher = tensors(4, 3)
    for loss in [distributions.softmax_kl, *distributions.STATE_LOSSES.values()]:
        assert loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32
