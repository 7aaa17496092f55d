"""Terms on what a model answers: the teacher's answers, labels, differences of scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses import distributions
from distill.objectives.base import Batch, Objective
from distill.recipe.terms import LabelsTerm, LogitsTerm, MarginTerm, at
from distill.signals.capture import Signals
from distill.signals.outputs import label_loss
from distill.signals.shapes import Setting
from edge.errors import ConfigError, TrainingError
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION


class Logits(Objective):
    """The distance between the two answers, as the task and its problem type read them."""

    def __init__(self, term: LogitsTerm, setting: Setting) -> None:
        super().__init__()
        self.learner, self.source = term.learner, term.teacher
        self._reading = setting.reading
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
            return distributions.masked_mean(values, total=batch.totals["samples"])
        if self._all_tokens or batch.labels is None:
            return distributions.masked_mean(values, batch.mask, batch.totals["tokens"])
        known = reading.labelled(batch.labels, batch.mask)
        return distributions.masked_mean(values, known, batch.totals.get("labelled"))


# A temperature to a loss of (student, teacher, valid).
_AnswerLoss = Callable[[float], Callable[..., Tensor]]


def _answer_loss(term: LogitsTerm, setting: Setting) -> _AnswerLoss:
    """Raises ConfigError for a loss that the task's answers do not allow."""
    if setting.reading.vectors:
        return _embedding_loss(term, setting)
    if term.loss == "cosine":
        raise ConfigError(f"loss: cosine compares embeddings: for {setting.task} use kl or mse")
    # A score has no distribution to soften: its KL, at unit variance, is the squared error.
    if term.loss == "mse" or setting.problem_type == REGRESSION:
        return lambda _: distributions.logits_mse
    reverse = term.loss == "reverse_kl"
    if setting.problem_type == MULTI_LABEL:
        of_labels = distributions.sigmoid_reverse_kl if reverse else distributions.sigmoid_kl
        return lambda temperature: _without_classes(of_labels, temperature=temperature)
    of_classes = distributions.softmax_reverse_kl if reverse else distributions.softmax_kl
    return lambda temperature: partial(of_classes, temperature=temperature)


def _embedding_loss(term: LogitsTerm, setting: Setting) -> _AnswerLoss:
    if term.loss not in ("mse", "cosine"):
        raise ConfigError(
            f"an embedding has no classes for loss: {term.loss}: use mse or cosine, as the recipe "
            "embedding does"
        )
    directions = setting.directions.get(term.teacher)
    loss = distributions.logits_mse if term.loss == "mse" else distributions.states_cosine

    def compare(student: Tensor, teacher: Tensor) -> Tensor:
        if directions is not None:
            teacher = reduced(teacher, directions, unit=setting.unit)
        if student.shape != teacher.shape:
            raise ConfigError(
                f"vectors of {student.shape[-1]} numbers cannot follow {term.teacher}'s of "
                f"{teacher.shape[-1]}: name one of as many, or match layers instead"
            )
        return loss(student, teacher)

    return lambda _: _without_classes(compare)


def reduced(vectors: Tensor, directions: Tensor, *, unit: bool) -> Tensor:
    """A teacher's vectors (B, theirs) along `directions` (size, theirs), of length 1 if `unit`."""
    found = distributions.matmul(vectors, directions.to(vectors.device).T)
    return F.normalize(found, dim=-1) if unit else found


def _without_classes(loss: Callable[..., Tensor], **options: float) -> Callable[..., Tensor]:
    def compare(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
        assert valid is None
        return loss(student, teacher, **options)

    return compare


class Labels(Objective):
    """The distance to the labels of the data; rows and tokens without one do not count."""

    def __init__(self, term: LabelsTerm, setting: Setting) -> None:
        super().__init__()
        self.learner = term.learner
        self._reading = setting.reading
        self._loss = label_loss(setting.problem_type)
        if self._reading.per_token and setting.vocabularies:
            self._loss = partial(distributions.vocabulary_cross_entropy, sizes=setting.vocabularies)

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
            answer = outputs[reading.outputs[0]]
            if reading.vectors:
                values = distributions.squared_error(similarity("cosine")(answer), filled)
            else:
                values = self._loss(answer, filled)
        return distributions.masked_mean(values, known, batch.totals.get("labelled"))


class Margin(Objective):
    """The distance between differences of scores within a question, or within the batch."""

    def __init__(self, term: MarginTerm, setting: Setting) -> None:
        super().__init__()
        embeds = setting.reading.vectors
        if not setting.reading.whole:
            raise ConfigError(f"match: margin compares scores of texts, {setting.task} gives none")
        if not embeds and {"similarity", "scale"} & term.model_fields_set:
            raise ConfigError("similarity and scale are for embeddings, a classifier has its score")
        self.learner, self.source = term.learner, term.teacher
        self._candidates = term.candidates
        self._loss = term.loss
        self._similarity = similarity(term.similarity)
        self._scale = term.scale if embeds and term.similarity == "cosine" else 1.0
        self._spread = setting.spreads.get(term.teacher, 1.0)
        # Totals count texts, of which an embedding's rows have two.
        self._texts_a_row = 2 if embeds else 1

    def forward(self, batch: Batch) -> Tensor:
        ours, theirs = self._scores(self.learn(batch)), self._scores(self.follow(batch))
        candidates = self._candidates or len(ours)
        if len(ours) % candidates:
            raise TrainingError(
                f"a batch of {len(ours)} rows cuts questions of {candidates} candidates: "
                "keep each question's rows together, and drop those that have fewer"
            )
        pair = [side.unflatten(0, (-1, candidates)) for side in (ours, theirs)]
        rows = batch.totals["samples"] / self._texts_a_row
        if self._loss == "mse":
            return distributions.masked_mean(distributions.margin_mse(*pair), total=rows)
        values = distributions.softmax_kl(*(side.mT for side in pair)).mean(-1)
        return distributions.masked_mean(values, total=rows / candidates)

    def _scores(self, signals: Signals) -> Tensor:
        """(rows, 1): a classifier's own, or how alike the vectors of a row's two texts are."""
        if "logits" in signals.outputs:
            return signals.outputs["logits"].float() / self._spread
        vectors = signals.outputs["sentence_embedding"]
        return self._similarity(vectors).unsqueeze(-1) * self._scale


def similarity(name: str) -> Callable[[Tensor], Tensor]:
    """How alike the two vectors of each row are: (rows * 2, size), in turn, to (rows,)."""

    def compare(vectors: Tensor) -> Tensor:
        pairs = vectors.float().unflatten(0, (-1, 2))
        if name == "cosine":
            pairs = F.normalize(pairs, dim=-1)
        return (pairs[:, 0] * pairs[:, 1]).sum(-1)

    return compare
