"""Losses of what happens inside a layer: attention, relations of tokens, flows, selectivity.

Shapes, order and precision are those of `distill.losses.distributions`. mask: (B, L), 1 on real
tokens. valid: (B, 1, L, L), true where a real token looks at a real one. Both are made of the
attention mask, never of a threshold, and padding may hold anything finite.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.losses.distributions import logits_mse, matmul, softmax_kl


def pair_mask(mask: Tensor) -> Tensor:
    """(B, L) to (B, 1, L, L), true where query and key are both real tokens."""
    real = mask.bool()
    return (real[:, :, None] & real[:, None, :]).unsqueeze(1)


def attention_mse(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """For each query, the mean over heads and valid keys of (s - t)^2, of scores before softmax.

    (B, A, L, L) to (B, L). Source: Jiao et al. 2020, "TinyBERT", eq. 7; there padding counts.
    """
    return logits_mse(student, teacher, valid).mean(1)


def attention_kl(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """For each query, the mean over heads of KL(softmax(t) || softmax(s)) over the valid keys.

    Scores before softmax, (B, A, L, L) to (B, L). Source: Wang et al. 2020, "MiniLM", 3.1.
    """
    return softmax_kl(student, teacher, valid=valid).mean(1)


def joined_heads(scores: Tensor, heads: int | None) -> Tensor:
    """(B, A, L, L) to (B, heads, L, L), the mean of each run of A / heads; None keeps them.

    After a softmax it is the geometric mean of where those heads look.
    """
    if heads is None or heads == scores.shape[1]:
        return scores
    return scores.unflatten(1, (heads, -1)).mean(2)


def split_heads(vectors: Tensor, heads: int | None) -> Tensor:
    """(B, A, L, d) to (B, heads, L, A * d / heads); None keeps the heads there are.

    A token's heads are joined first: cut flat, a relation head would mix tokens.
    """
    if heads is None or heads == vectors.shape[1]:
        return vectors
    joined = vectors.transpose(1, 2).flatten(2)  # (B, L, A * d)
    return joined.unflatten(-1, (heads, -1)).transpose(1, 2)


def relation_scores(a: Tensor, b: Tensor, heads: int | None = None) -> Tensor:
    """a b^T / sqrt(d), the relation of each token to each, (B, A, L, d) twice to (B, heads, L, L).

    Source: Wang et al. 2021, "MiniLMv2", 3.1; value-value: 2020, "MiniLM", 3.2.
    """
    a, b = split_heads(a, heads), split_heads(b, heads)
    return matmul(a, b.transpose(-1, -2)) / a.shape[-1] ** 0.5


def relation_kl(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    valid: Tensor,
    heads: int | None = None,
) -> Tensor:
    """For each token, the mean over relation heads of the KL of its relations to the valid ones.

    student, teacher: two of queries, keys and values, (B, A, L, d) each, to (B, L); widths and
    head counts may differ where `heads` is given.
    Source: Wang et al. 2021, "MiniLMv2", 3.1; with values and no `heads`, 2020, "MiniLM", 3.2.
    """
    ours, theirs = (relation_scores(*pair, heads=heads) for pair in (student, teacher))
    return attention_kl(ours, theirs, valid)


def flow_matrix(start: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """start^T end / tokens, (B, L, H) and (B, L, H') to (B, H, H'): how states turn into others.

    Source: Yim et al. 2017, "A Gift from Knowledge Distillation", eq. 1, tokens for pixels.
    """
    real = mask.unsqueeze(-1).bool()
    start, end = (states.float().masked_fill(~real, 0.0) for states in (start, end))
    return matmul(start.transpose(1, 2), end) / mask.sum(1).clamp(min=1)[:, None, None]


def flow_mse(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """mean over units of the squared distance of two flow matrices, (B, L, H) each, to (B,).

    Source: Yim et al. 2017, eq. 2.
    """
    ours, theirs = flow_matrix(*student, mask), flow_matrix(*teacher, mask).detach()
    return (ours - theirs).square().mean((1, 2))


def selectivity_mmd(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """MMD^2, by the kernel (x . y)^2, of the two sets of neurons; (B, L, H), (B, L, H') to (B,).

    A neuron is the vector of its activations over the real tokens, at length 1. With this kernel
    the three double sums over neurons are |S S^T / H - T T^T / H'|^2, so widths may differ.
    Source: Huang and Wang 2017, "Like What You Like: Neuron Selectivity Transfer", 4.
    """
    ours, theirs = _selectivity(student, mask), _selectivity(teacher.detach(), mask)
    return (ours - theirs).square().sum((1, 2))


def _selectivity(states: Tensor, mask: Tensor) -> Tensor:
    """(B, L, H) to (B, L, L), the mean over neurons of the outer product of their activations."""
    neurons = F.normalize(states.float().masked_fill(~mask.unsqueeze(-1).bool(), 0.0), dim=1)
    return matmul(neurons, neurons.transpose(1, 2)) / states.shape[-1]
