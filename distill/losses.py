"""Losses as pure functions: one value a sample or a token, reduced explicitly by `masked_mean`.

Shapes: B samples, L tokens, C labels, H hidden units. Student first, teacher second. Arithmetic
is float32 whatever the inputs are, and no gradient reaches the teacher's side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def masked_mean(values: Tensor, mask: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    """sum(values * mask) / total: padding neither adds to the sum nor to the count.

    values, mask: the same shape. total: the count to divide by; by default what the mask selects.
    A batch accumulated in parts passes the count of the whole, so that parts add up to its mean.
    Masked values may be anything, infinities included.
    """
    if mask is not None:
        values = torch.where(mask.bool(), values, values.new_zeros(()))
        total = mask.sum() if total is None else total
    return values.sum() / (values.numel() if total is None else total)


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(softmax(t / T) || softmax(s / T)), (B, C) to (B,).

    T^2 keeps the size of the gradients the same at every temperature.
    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", 2.
    """
    log_p = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    log_q = F.log_softmax(student.float() / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**2


def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * sum over labels of KL(Bernoulli(sigmoid(t / T)) || Bernoulli(sigmoid(s / T))).

    (B, C) to (B,): `softmax_kl` where each label is a question of its own.
    """
    t, s = teacher.detach().float() / temperature, student.float() / temperature
    p = torch.sigmoid(t)
    yes = p * (F.logsigmoid(t) - F.logsigmoid(s))
    no = (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (yes + no).sum(-1) * temperature**2


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over labels of (s - t)^2, (B, C) to (B,).

    Source: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?", 2.1.
    """
    return (student.float() - teacher.detach().float()).square().mean(-1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label], (B, C) and (B,) to (B,); 0 where the label is -100."""
    return F.cross_entropy(logits.float(), labels.long(), reduction="none", ignore_index=-100)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """mean over labels of -log sigmoid(+-logit), (B, C) and (B, C) of 0 and 1 to (B,)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return entropy.mean(-1)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """(score - label)^2, (B, 1) and (B,) to (B,)."""
    return (logits.float().squeeze(-1) - labels.float()).square()


def states_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over units of (s - t)^2, (..., H) to (...).

    Source: Jiao et al. 2020, "TinyBERT", eq. 8.
    """
    return (student.float() - teacher.detach().float()).square().mean(-1)


def states_normalized_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """|s/|s| - t/|t||^2, (..., H) to (...): direction only, between 0 and 4.

    Source: Sun et al. 2019, "Patient Knowledge Distillation", eq. 7.
    """
    s, t = F.normalize(student.float(), dim=-1), F.normalize(teacher.detach().float(), dim=-1)
    return (s - t).square().sum(-1)


def states_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(s, t), (..., H) to (...).

    Source: Sanh et al. 2019, "DistilBERT", 3.
    """
    return 1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)


# By the names of the recipe language.
STATE_LOSSES: dict[str, Loss] = {
    "mse": states_mse,
    "normalized_mse": states_normalized_mse,
    "cosine": states_cosine,
}
