"""Answers of several made one that is as right as it can be, by the labels. K answers of C each.

Source: Guo et al. 2020, "Online Knowledge Distillation via Collaborative Learning" (KDCL), 3.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses import distributions
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION

_HALVINGS = 30
# Passes for each answer, where there are more than two: a pair of weights is renewed in each.
_PASSES = 4


def best(errors: Tensor) -> Tensor:
    """1 for the smallest error of each row, (K, ...) to (K, ...); those that tie share it."""
    least = (errors == errors.amin(0, keepdim=True)).float()
    return least / least.sum(0, keepdim=True)


def convex(answers: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights w >= 0 in sum 1, (K, ...), of least loss of sum_k w_k z_k, each row its own.

    answers: z, (K, ..., C). slope: the derivative of a row's loss by its answer, (..., C) to
    (..., C), 0 where there is no label: such rows keep equal weights. Two weights at a time are
    renewed, that of the steepest slope in favour of the flattest, by halving what may go over:
    exact for K = 2. The loss has to be convex in the answer.
    """
    count = len(answers)
    weights = torch.full_like(answers[..., 0], 1 / count)
    for _ in range(1 if count == 2 else _PASSES * count):
        mixed = (weights.unsqueeze(-1) * answers).sum(0)
        slopes = (slope(mixed) * answers).sum(-1)
        gains = slopes.argmin(0, keepdim=True)
        gives = slopes.masked_fill(weights <= 0, -torch.inf).argmax(0, keepdim=True)
        way = _taken(answers, gains) - _taken(answers, gives)
        share = _least(mixed, way, weights.gather(0, gives).squeeze(0), slope)
        weights = weights.scatter_add(0, gains, share.unsqueeze(0))
        weights = weights.scatter_add(0, gives, -share.unsqueeze(0))
    return weights


def min_logit(answers: Tensor, labels: Tensor, known: Tensor, problem_type: str | None) -> Tensor:
    """Class by class the least of all logits less the label's own: the widest margins of any.

    (K, ..., C) and (...) to (..., C), the label's logit being 0; where labels are questions of
    their own, (..., C), the largest logit of those that hold and the least of the others. The mean
    where no label is known.
    """
    if problem_type == MULTI_LABEL:
        found = torch.where(labels > 0, answers.amax(0), answers.amin(0))
    else:
        index = labels.clamp(min=0).long().unsqueeze(-1).expand(len(answers), *labels.shape, 1)
        found = (answers - answers.gather(-1, index)).amin(0)
    return torch.where(known.unsqueeze(-1), found, answers.mean(0))


def label_slope(
    answer: Tensor,
    labels: Tensor,
    known: Tensor,
    problem_type: str | None,
    classes: Tensor | None = None,
) -> Tensor:
    """The derivative of a label's loss by the answer, up to a factor, (..., C); 0 if not known."""
    if problem_type == REGRESSION:
        slope = answer - labels.unsqueeze(-1)
    elif problem_type == MULTI_LABEL:
        slope = answer.sigmoid() - labels
    else:
        right = F.one_hot(labels.clamp(min=0).long(), answer.shape[-1])
        slope = distributions.log_softmax(answer, classes).exp() - right
    return torch.where(known.unsqueeze(-1), slope, 0.0)


def _taken(answers: Tensor, index: Tensor) -> Tensor:
    """Of each row the answer of one, (K, ..., C) and (1, ...) to (..., C)."""
    return answers.gather(0, index.unsqueeze(-1).expand(1, *answers.shape[1:])).squeeze(0)


def _least(
    start: Tensor, way: Tensor, longest: Tensor, slope: Callable[[Tensor], Tensor]
) -> Tensor:
    """How far along `way` from `start`, 0 to `longest`, a row's loss is least."""

    def rises(share: Tensor) -> Tensor:
        return (slope(start + share.unsqueeze(-1) * way) * way).sum(-1) >= 0

    low, high = torch.zeros_like(longest), longest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = rises(middle)
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    # All of it, to the last bit: what is left of a weight would be asked again and again.
    found = torch.where(rises(longest), (low + high) / 2, longest)
    return torch.where(rises(torch.zeros_like(longest)), 0.0, found)
