"""Terms on what a model answers: the teacher's answers, labels, differences of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distill import losses
from distill.objectives.base import Batch, Objective
from distill.setting import Setting
from distill.terms import LabelsTerm, LogitsTerm, MarginTerm, at
from edge.errors import ConfigError, TrainingError
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION


@dataclass(frozen=True)
class Reading:
    """How the answers of a task are compared.

    outputs: their names. per_token: each token has its own, (B, L, C), and labels are (B, L).
    over_tokens: the classes are the tokens of the text, (B, L), and labels are positions, one for
    each output, (B, outputs). Otherwise (B, C), and labels are (B,) or (B, C).
    """

    outputs: tuple[str, ...] = ("logits",)
    per_token: bool = False
    over_tokens: bool = False

    def classes(self, mask: Tensor) -> Tensor | None:
        """What a distribution runs over, where that differs from row to row."""
        return mask.bool() if self.over_tokens else None

    def labelled(self, labels: Tensor, mask: Tensor) -> Tensor:
        """True where there is a label: (B,), per token (B, L), over tokens (B, outputs)."""
        known = ~labels.isnan() if labels.is_floating_point() else labels != losses.IGNORED
        if self.per_token:
            return known & mask.bool()
        return known.all(-1) if known.ndim == 2 and not self.over_tokens else known


READINGS = {
    "text-classification": Reading(),
    "token-classification": Reading(per_token=True),
    "fill-mask": Reading(per_token=True),
    "question-answering": Reading(("start_logits", "end_logits"), over_tokens=True),
    "feature-extraction": Reading(("sentence_embedding",)),
}
_EMBEDS = "feature-extraction"


class Logits(Objective):
    """The distance between the two answers, as the task and its problem type read them."""

    def __init__(self, term: LogitsTerm, setting: Setting) -> None:
        super().__init__()
        self.learner, self.source = term.learner, term.teacher
        self._reading = READINGS[setting.task]
        self._all_tokens = term.tokens == "all"
        self._temperature = term.temperature
        self._loss = _answer_loss(term, setting)
        self.temperature = at(term.temperature, 0.0)

    def advance(self, step: int, progress: float) -> None:
        self.temperature = at(self._temperature, progress)

    def forward(self, batch: Batch) -> Tensor:
        reading, ours, taught = self._reading, self.learn(batch), self.follow(batch)
        classes = reading.classes(batch.mask)
        loss = self._loss(self.temperature)
        values = torch.stack(
            [
                loss(ours.outputs[name], taught.outputs[name], valid=classes)
                for name in reading.outputs
            ]
        ).mean(0)
        if not reading.per_token:
            return losses.masked_mean(values, total=batch.totals["samples"])
        if self._all_tokens or batch.labels is None:
            return losses.masked_mean(values, batch.mask, batch.totals["tokens"])
        known = reading.labelled(batch.labels, batch.mask)
        return losses.masked_mean(values, known, batch.totals.get("labelled"))


# A temperature to a loss of (student, teacher, valid).
_AnswerLoss = Callable[[float], Callable[..., Tensor]]


def _answer_loss(term: LogitsTerm, setting: Setting) -> _AnswerLoss:
    """Raises ConfigError for a loss that the task's answers do not allow."""
    if setting.task == _EMBEDS:
        return _embedding_loss(term, setting)
    if term.loss == "cosine":
        raise ConfigError(f"loss: cosine compares embeddings: for {setting.task} use kl or mse")
    # A score has no distribution to soften: its KL, at unit variance, is the squared error.
    if term.loss == "mse" or setting.problem_type == REGRESSION:
        return lambda _: losses.logits_mse
    if setting.problem_type == MULTI_LABEL:
        return lambda temperature: _without_classes(losses.sigmoid_kl, temperature=temperature)
    return lambda temperature: partial(losses.softmax_kl, temperature=temperature)


def _embedding_loss(term: LogitsTerm, setting: Setting) -> _AnswerLoss:
    if term.loss == "kl":
        raise ConfigError("an embedding has no classes for loss: kl: use mse or cosine")
    if term.loss == "mse":
        return lambda _: losses.logits_mse
    return lambda _: _without_classes(losses.states_cosine)


def _without_classes(loss: Callable[..., Tensor], **options: float) -> Callable[..., Tensor]:
    def compare(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
        assert valid is None
        return loss(student, teacher, **options)

    return compare


class Labels(Objective):
    """The distance to the labels of the data; rows and tokens without one do not count."""

    def __init__(self, term: LabelsTerm, setting: Setting) -> None:
        super().__init__()
        if setting.task == _EMBEDS:
            raise ConfigError(f"{_EMBEDS} has no labels to fit: use match: logits or hidden_states")
        self.learner = term.learner
        self._reading = READINGS[setting.task]
        self._loss: Callable[..., Tensor] = {
            REGRESSION: losses.squared_error,
            MULTI_LABEL: losses.binary_cross_entropy,
        }.get(setting.problem_type or "", losses.cross_entropy)

    def forward(self, batch: Batch) -> Tensor:
        reading, labels, outputs = self._reading, batch.labels, self.learn(batch).outputs
        assert labels is not None
        known = reading.labelled(labels, batch.mask)
        if reading.over_tokens:
            classes = reading.classes(batch.mask)
            columns = zip(reading.outputs, labels.unbind(-1), strict=True)
            values = torch.stack(
                [self._loss(outputs[name], column, valid=classes) for name, column in columns], -1
            )
        else:
            # A label that is no number would make the gradient none, masked or not.
            filled = labels.nan_to_num() if labels.is_floating_point() else labels
            values = self._loss(outputs[reading.outputs[0]], filled)
        return losses.masked_mean(values, known, batch.totals.get("labelled"))


class Margin(Objective):
    """The distance between differences of scores within a question, or within the batch."""

    def __init__(self, term: MarginTerm, setting: Setting) -> None:
        super().__init__()
        if setting.task != "text-classification":
            raise ConfigError(f"match: margin compares scores of texts, {setting.task} gives none")
        self.learner, self.source = term.learner, term.teacher
        self._candidates = term.candidates

    def forward(self, batch: Batch) -> Tensor:
        ours, theirs = self.learn(batch).outputs["logits"], self.follow(batch).outputs["logits"]
        candidates = self._candidates or len(ours)
        if len(ours) % candidates:
            raise TrainingError(
                f"a batch of {len(ours)} rows cuts questions of {candidates} candidates: "
                "keep each question's rows together, and drop those that have fewer"
            )
        pair = (side.unflatten(0, (-1, candidates)) for side in (ours, theirs))
        values = losses.margin_mse(*pair)
        return losses.masked_mean(values, total=batch.totals["samples"])
