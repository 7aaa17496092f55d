"""One answer made of several: of all teachers, or of any others who take part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.companions.base import Cast, Companion, Scene
from distill.companions.fitting import best, convex, label_slope, min_logit
from distill.losses import distributions
from distill.recipe.companions import Ensemble
from distill.signals.capture import Signals
from distill.signals.outputs import label_loss
from edge.errors import ConfigError
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION

_BY_LABELS = ("labels", "best", "convex")
_PER_SAMPLE = ("entropy", *_BY_LABELS)


class EnsembleAnswers(Companion):
    """The mean of what its members answer; it has no layers."""

    def __init__(self, config: Ensemble, cast: Cast) -> None:
        super().__init__()
        self.shapes = {config.name: None}
        self._config = config
        self._members = cast.who(config.of)
        self._setting = cast.setting
        self._reading = cast.setting.reading
        self._active = [True] * len(self._members)
        # A step's draw follows from seed and step, so that a run that is continued repeats it.
        self._seed = torch.initial_seed()
        self._check()

    def _check(self) -> None:
        config, count = self._config, len(self._members)
        if isinstance(config.weights, tuple) and len(config.weights) != count:
            raise ConfigError(
                f"companion {config.name} has {len(config.weights)} weights for {count} in "
                f"{config.of} ({', '.join(self._members)}): give one for each"
            )
        if config.weights == "entropy" and not self._has_probabilities:
            raise ConfigError(
                f"companion {config.name}: only probabilities have an entropy, and "
                f"{self._setting.problem_type or self._setting.task} gives none: "
                "use other weights"
            )
        fitted = config.weights in _BY_LABELS or config.mean == "min-logit"
        if fitted and self._reading.vectors:
            raise ConfigError(
                f"companion {config.name}: {self._setting.task} has no labels: use other weights"
            )
        if config.mean == "min-logit" and self._setting.problem_type == REGRESSION:
            raise ConfigError(
                f"companion {config.name}: a score has one logit and no margin for mean: "
                "min-logit: use mean: logits with weights: best or convex"
            )

    @property
    def _has_probabilities(self) -> bool:
        return not self._reading.vectors and self._setting.problem_type != REGRESSION

    def advance(self, step: int, progress: float) -> None:
        count = len(self._members)
        random = np.random.default_rng((self._seed, step))
        one = int(random.integers(count))
        if self._config.weights == "random":
            self._active = [i == one for i in range(count)]
        elif self._config.drop:
            kept = random.random(count) >= self._config.drop
            self._active = kept.tolist() if kept.any() else [i == one for i in range(count)]

    def forward(self, scene: Scene) -> dict[str, Signals]:
        said = [scene.said[name].detach() for name in self._members]
        mask = scene.inputs["attention_mask"]
        outputs = {}
        for index, name in enumerate(self._reading.outputs):
            answers = [signals.outputs[name] for signals in said]
            if self._config.mean == "min-logit":
                outputs[name] = self._min_logit(answers, scene.labels, index, mask)
                continue
            weights = self._weights(answers, scene.labels, index, mask)
            outputs[name] = self._mean(answers, weights, self._reading.classes(mask))
        return {self._config.name: Signals(outputs)}

    def _weights(
        self, answers: Sequence[Tensor], labels: Tensor | None, index: int, mask: Tensor
    ) -> Tensor:
        """Each member's, (K,) or (K, *rows) with a number for each row or token; in sum 1."""
        active = torch.tensor(self._active, device=mask.device)
        kind = self._config.weights
        if kind in _PER_SAMPLE:
            if kind == "entropy":
                doubts = [self._entropy(answer, self._reading.classes(mask)) for answer in answers]
            else:
                doubts = [self._error(answer, labels, index, mask) for answer in answers]
            if kind == "best":
                weights = best(torch.stack(doubts))
            elif kind == "convex":
                weights = self._convex(answers, labels, index, mask)
            else:
                weights = confidence(torch.stack(doubts))
            active = active.view(-1, *[1] * (weights.ndim - 1))
        else:
            given = kind if isinstance(kind, tuple) else [1.0] * len(answers)
            weights = torch.tensor(given, device=mask.device)
        # Those with weights of 0 alone may be what is left of a step: then all of them count.
        weights = weights * active
        none = weights.sum(0, keepdim=True) == 0
        weights = torch.where(none, active.float().expand_as(weights), weights)
        return weights / weights.sum(0, keepdim=True)

    def _labels(self, labels: Tensor, index: int, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The labels of an answer and where they are known, each (*rows) or, of several, (B, C)."""
        known = self._reading.labelled(labels, mask)
        if self._reading.over_tokens:
            labels, known = labels[..., index], known[..., index]
        return labels.nan_to_num() if labels.is_floating_point() else labels, known

    def _convex(
        self, answers: Sequence[Tensor], labels: Tensor | None, index: int, mask: Tensor
    ) -> Tensor:
        stacked = torch.stack([answer.float() for answer in answers])
        if labels is None:
            return torch.full_like(stacked[..., 0], 1 / len(answers))
        told, known = self._labels(labels, index, mask)
        kind, classes = self._setting.problem_type, self._reading.classes(mask)
        return convex(stacked, lambda answer: label_slope(answer, told, known, kind, classes))

    def _min_logit(
        self, answers: Sequence[Tensor], labels: Tensor | None, index: int, mask: Tensor
    ) -> Tensor:
        stacked = torch.stack([answer.float() for answer in answers])
        if labels is None:
            return stacked.mean(0)
        return min_logit(stacked, *self._labels(labels, index, mask), self._setting.problem_type)

    def _entropy(self, answer: Tensor, classes: Tensor | None) -> Tensor:
        """Of each row's or token's distribution, or the mean of its labels', in nats."""
        answer = answer.float()
        if self._setting.problem_type == MULTI_LABEL:
            p = answer.sigmoid()
            return -(p * F.logsigmoid(answer) + (1 - p) * F.logsigmoid(-answer)).mean(-1)
        log_p = distributions.log_softmax(answer, classes)
        return -(log_p.exp() * log_p).sum(-1)

    def _error(self, answer: Tensor, labels: Tensor | None, index: int, mask: Tensor) -> Tensor:
        """The loss of the labels, 0 where there is none."""
        if labels is None:
            return answer.new_zeros(answer.shape[:-1])
        told, known = self._labels(labels, index, mask)
        classes = self._reading.classes(mask)
        values = label_loss(self._setting.problem_type)(
            answer, told, **({} if classes is None else {"valid": classes})
        )
        return torch.where(known, values, values.new_zeros(()))

    def _mean(self, answers: Sequence[Tensor], weights: Tensor, classes: Tensor | None) -> Tensor:
        """(..., C) of all, in logits again."""
        stacked = torch.stack([answer.float() for answer in answers])
        weights = weights.view(*weights.shape, *[1] * (stacked.ndim - weights.ndim))
        if self._config.mean == "logits" or not self._has_probabilities:
            return (weights * stacked).sum(0)
        temperature = self._config.temperature
        if self._setting.problem_type == MULTI_LABEL:
            yes, no = (F.logsigmoid(sign * stacked / temperature) for sign in (1, -1))
            return temperature * (_log_mean(yes, weights) - _log_mean(no, weights))
        log_p = distributions.log_softmax(stacked / temperature, classes)
        return temperature * _log_mean(log_p, weights)


def confidence(doubts: Tensor) -> Tensor:
    """(1 - softmax of the doubts over K) / (K - 1), (K, ...) to (K, ...), in sum 1.

    doubts: of each of K, a loss or an entropy. Equal doubts give equal weights, one gets all.
    Source: Zhang et al. 2022, "Confidence-Aware Multi-Teacher Knowledge Distillation", eq. 3.
    """
    count = len(doubts)
    return (1 - doubts.softmax(0)) / (count - 1) if count > 1 else torch.ones_like(doubts)


def _log_mean(log_values: Tensor, weights: Tensor) -> Tensor:
    """log of the weighted mean of exp(log_values), over the first axis."""
    log_weights = torch.where(weights > 0, weights, 1.0).log().masked_fill(weights == 0, -math.inf)
    return (log_values + log_weights).logsumexp(0)
