"""Terms on answers, on signals of every task made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.objectives import OBJECTIVES, Batch, Learner, Setting, Shape
from distill.recipe.config import Stage
from distill.signals.capture import Signals
from edge.errors import ConfigError, TrainingError

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
SHAPE = Shape(layers=2, width=8, architecture="bert", attention=(2, 8))
GENERATOR = torch.Generator().manual_seed(1)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def objective(
    values: dict[str, Any], *, task: str = "text-classification", problem: str | None = None
) -> Any:
    term = Stage.model_validate({"terms": [values]}).terms[0]
    return OBJECTIVES[term.match](term, Setting(SHAPE, SHAPE, problem, task))


def tally(labels: Tensor | None, task: str, problem: str | None = None) -> dict[str, Tensor]:
    stage = Stage.model_validate({"terms": [{"match": "logits", "loss": "mse"}]})
    learner = Learner(torch.nn.Linear(1, 1), stage, Setting(SHAPE, SHAPE, problem, task))
    batch = {"attention_mask": MASK, **({} if labels is None else {"labels": labels})}
    return learner.totals(learner.tally(batch))


def answer(
    term: dict[str, Any],
    ours: dict[str, Tensor],
    theirs: dict[str, Tensor],
    labels: Tensor | None = None,
    *,
    task: str = "text-classification",
    problem: str | None = None,
) -> float:
    """A term's value on answers made by hand."""
    batch = Batch(
        Signals(ours), {"teacher": Signals(theirs)}, labels, MASK, tally(labels, task, problem)
    )
    return float(objective(term, task=task, problem=problem)(batch))


def kl(student: Tensor, teacher: Tensor) -> float:
    p, log_q = teacher.double().softmax(-1), student.double().log_softmax(-1)
    return float((p * (p.log() - log_q)).sum())


KL, MSE, LABELS = {"match": "logits"}, {"match": "logits", "loss": "mse"}, {"match": "labels"}


def test_rows_without_a_label_do_not_count() -> None:
    logits, labels = random(2, 3), torch.tensor([-100, 1])
    found = answer(LABELS, {"logits": logits}, {}, labels)
    assert found == pytest.approx(-float(logits[1].log_softmax(-1)[1]), rel=1e-5)
    # They teach all the same.
    taught = random(2, 3)
    found = answer(KL, {"logits": logits}, {"logits": taught}, labels)
    assert found == pytest.approx(sum(map(kl, logits, taught)) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("problem", "labels", "expected"),
    [
        ("regression", [math.nan, 2.0], lambda x: ((x[1, 0] - 2) ** 2).item()),
        (
            "multi_label_classification",
            [[math.nan] * 2, [1.0, 0.0]],
            lambda x: -(x[1, 0].sigmoid().log() + (-x[1, 1]).sigmoid().log()).item() / 2,
        ),
    ],
)
def test_scores_without_a_label_do_not_count(
    problem: str, labels: Any, expected: Callable[[Tensor], float]
) -> None:
    logits = random(2, 1 if problem == "regression" else 2).requires_grad_()
    wanted = torch.tensor(labels)
    batch = Batch(
        Signals({"logits": logits}), {}, wanted, MASK, tally(wanted, "text-classification", problem)
    )
    value = objective(LABELS, problem=problem)(batch)
    assert value.item() == pytest.approx(expected(logits), rel=1e-5)
    value.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad[0] == 0).all() and (logits.grad[1] != 0).all()


TAGS = torch.tensor([[-100, 1, 0, 2, -100], [-100, 2, -100, 1, -100]])  # a label under padding
LABELLED = [(0, 1), (0, 2), (0, 3), (1, 1)]
REAL = [(b, i) for b, n in enumerate((5, 3)) for i in range(n)]


@pytest.mark.parametrize("task", ["token-classification", "fill-mask"])
def test_tasks_that_answer_for_each_token(task: str) -> None:
    ours, theirs = random(2, 5, 4), random(2, 5, 4)
    theirs[1, 3:] = math.inf  # padding may hold anything
    signals = {"logits": ours}, {"logits": theirs}
    expected = -sum(float(ours[b, i].log_softmax(-1)[TAGS[b, i]]) for b, i in LABELLED) / 4
    assert answer(LABELS, *signals, TAGS, task=task) == pytest.approx(expected, rel=1e-5)
    expected = sum(kl(ours[b, i], theirs[b, i]) for b, i in LABELLED) / 4
    assert answer(KL, *signals, TAGS, task=task) == pytest.approx(expected, rel=1e-5)
    expected = sum(kl(ours[b, i], theirs[b, i]) for b, i in REAL) / 8
    for labels, term in ((TAGS, {**KL, "tokens": "all"}), (None, KL)):
        assert answer(term, *signals, labels, task=task) == pytest.approx(expected, rel=1e-5)
    expected = sum(float((ours[b, i] - theirs[b, i]).square().mean()) for b, i in LABELLED) / 4
    assert answer(MSE, *signals, TAGS, task=task) == pytest.approx(expected, rel=1e-5)


def test_answers_that_are_positions() -> None:
    """Question answering: start and end are distributions over the real tokens."""
    names = ("start_logits", "end_logits")
    ours, theirs = ({name: random(2, 5) for name in names} for _ in "st")
    for name in names:
        theirs[name][1, 3:] = 1e4
        ours[name][1, 3:] = 50.0
    positions = torch.tensor([[1, 4], [0, -100]])
    task = "question-answering"
    rows = [(name, b, (5, 3)[b]) for name in names for b in range(2)]
    expected = sum(kl(ours[name][b, :n], theirs[name][b, :n]) for name, b, n in rows) / 4
    assert answer(KL, ours, theirs, positions, task=task) == pytest.approx(expected, rel=1e-5)
    expected = (
        sum(float((ours[name][b, :n] - theirs[name][b, :n]).square().mean()) for name, b, n in rows)
        / 4
    )
    assert answer(MSE, ours, theirs, positions, task=task) == pytest.approx(expected, rel=1e-5)
    found = answer(LABELS, ours, theirs, positions, task=task)
    expected = -sum(
        float(ours[name][b, :n].log_softmax(-1)[position])
        for name, b, n, position in (
            ("start_logits", 0, 5, 1), ("end_logits", 0, 5, 4), ("start_logits", 1, 3, 0),
        )
    ) / 3  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)


def test_embeddings_are_compared_without_labels() -> None:
    ours, theirs = random(2, 6), random(2, 6)
    signals = {"sentence_embedding": ours}, {"sentence_embedding": theirs}
    task = "feature-extraction"
    found = answer(MSE, *signals, task=task)
    assert found == pytest.approx(float((ours - theirs).square().mean()), rel=1e-5)
    found = answer({**KL, "loss": "cosine"}, *signals, task=task)
    cosines = torch.nn.functional.cosine_similarity(ours, theirs)
    assert found == pytest.approx(float(1 - cosines.mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("term", "task", "message"),
    [
        (KL, "feature-extraction", "an embedding has no classes for loss: kl: use mse or cosine"),
        ({**KL, "loss": "cosine"}, "fill-mask", "cosine compares embeddings: for fill-mask use"),
        ({"match": "margin"}, "fill-mask", "margin compares scores of texts, fill-mask gives none"),
    ],
)
def test_terms_that_a_task_cannot_have(term: dict[str, Any], task: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        objective(term, task=task)
    assert "\n" not in str(found.value)


def test_what_is_counted() -> None:
    def counted(*args: Any) -> list[float]:
        return [float(value) for value in tally(*args).values()]

    assert counted(torch.tensor([0, 1]), "text-classification") == [2, 8, 2]
    assert counted(torch.tensor([0, -100]), "text-classification") == [2, 8, 1]
    assert counted(torch.tensor([-100, -100]), "text-classification") == [2, 8, 1]
    assert counted(torch.ones(2, 3), "text-classification") == [2, 8, 2]
    assert counted(TAGS, "token-classification") == [2, 8, 4]
    assert counted(torch.tensor([[1, 4], [0, -100]]), "question-answering") == [2, 8, 3]
    assert counted(None, "feature-extraction") == [2, 8, 2]


def test_margins_within_questions() -> None:
    ours, theirs = random(4, 1), random(4, 1)
    totals = {"samples": torch.tensor(4.0)}
    batch = Batch(
        Signals({"logits": ours}), {"teacher": Signals({"logits": theirs})}, None, MASK, totals
    )
    found = objective({"match": "margin", "candidates": 2})(batch)
    d = ours - theirs
    expected = float((d[0] - d[1]) ** 2 + (d[2] - d[3]) ** 2) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)
    whole = objective({"match": "margin"})(batch)
    expected = sum(float((d[i] - d[j]) ** 2) for i in range(4) for j in range(4)) / 12
    assert whole.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(TrainingError, match="a batch of 4 rows cuts questions of 3 candidates"):
        stage = {"match": "margin", "candidates": 3}
        term = Stage.model_validate({"terms": [stage], "batch_size": 3}).terms[0]
        OBJECTIVES["margin"](term, Setting(SHAPE, SHAPE, None))(batch)
