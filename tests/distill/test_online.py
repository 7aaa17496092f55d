"""Several students at once: what companions say, recipes' totals, where gradients go, and runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from distill import DistillConfig, distill, load_recipe
from distill.companions.fitting import best, convex, label_slope, min_logit
from distill.objectives import Learner
from distill.recipe.config import Stage, recipe_file
from distill.signals.shapes import Setting, Shape
from distill.training.trainer import DistillTrainer
from edge.config import load_yaml
from edge.errors import ConfigError
from tests.distill.conftest import make_config

NAMES = ("afd", "codistill", "dml", "feature-fusion", "kdcl", "okddip", "one")
# The second row is padded.
BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 9, 3], [2, 7, 8, 3, 0], [2, 12, 5, 10, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
}
MASK = BATCH["attention_mask"]
LABELS = torch.tensor([0, 1, 2])
CLASSES = ("a", "b", "c")
# A task: its model, problem type and labels.
TASKS: dict[str, tuple[Any, str, str | None, Tensor]] = {
    "single": (AutoModelForSequenceClassification, "text-classification", None, LABELS),
    "several": (
        AutoModelForSequenceClassification,
        "text-classification",
        "multi_label_classification",
        torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
    ),
    "score": (
        AutoModelForSequenceClassification,
        "text-classification",
        "regression",
        torch.tensor([0.5, -1.0, torch.nan]),
    ),
    "words": (
        AutoModelForTokenClassification,
        "token-classification",
        None,
        torch.tensor([[-100, 0, 2, 1, -100], [-100, 1, 1, -100, -100], [-100, -100, 0, 0, -100]]),
    ),
    "tokens": (
        AutoModelForMaskedLM,
        "fill-mask",
        None,
        torch.tensor([[-100, 5, -100, 9, -100], [-100, -100, 8, -100, -100], [-100] * 5]),
    ),
    "answers": (
        AutoModelForQuestionAnswering,
        "question-answering",
        None,
        torch.tensor([[1, 2], [0, 3], [-100, -100]]),
    ),
}


def student_of(task: str, seed: int, **changes: Any) -> Any:
    labels = {"score": ("x",), "answers": ("a", "b")}.get(task, CLASSES)
    torch.manual_seed(seed)
    return TASKS[task][0].from_config(make_config("bert", labels=labels, **changes)).eval()


def stage(terms: list[dict[str, Any]], *companions: dict[str, Any]) -> Stage:
    return Stage.build({"terms": terms, "companions": list(companions)}, where="recipe")


def learner(of: Stage, task: str = "single") -> Learner:
    """Everyone is in eval mode: no dropout."""
    _, name, problem, _ = TASKS[task]
    student = student_of(task, 0)
    setting = Setting(Shape.of(student.config), None, problem, name)
    torch.manual_seed(9)
    return Learner(student, of, setting, lambda _, seed: student_of(task, seed)).eval()


def values(model: Learner, labels: Tensor = LABELS) -> Tensor:
    totals = model.totals(model.tally({**BATCH, "labels": labels}))
    return model(BATCH, labels, None, totals)


def logits(model: Any) -> Tensor:
    return model(**BATCH).logits


def kl(learns: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(taught || learns), the mean over rows, by PyTorch's own function."""
    a, b = (learns / temperature).log_softmax(-1), (taught / temperature).log_softmax(-1)
    return F.kl_div(a, b, log_target=True, reduction="batchmean") * temperature**2


def grafted(model: Learner, number: int) -> Any:
    """A whole model with the student's lower layers and a branch's upper ones."""
    whole, branch = student_of("single", 99), model.companions[0].models[number]
    found = dict(model.student.state_dict())
    own = branch.state_dict()
    found |= {name: value for name, value in own.items() if ".layer." in name}
    found |= {name: own[name] for name in own if "pooler" in name or "classifier" in name}
    whole.load_state_dict(found)
    return whole


def reached(model: torch.nn.Module) -> set[str]:
    """The parameters that a gradient reached."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool((parameter.grad != 0).any())
    }


# What is made of several answers


def test_the_best_answer_is_that_of_least_loss() -> None:
    errors = torch.tensor([[0.1, 3.0, 0.0], [0.2, 1.0, 0.0]])
    assert best(errors).tolist() == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_convex_weights_are_those_of_a_solver(count: int, problem: str | None) -> None:
    from scipy.optimize import minimize

    torch.manual_seed(count)
    width = 1 if problem == "regression" else 5
    answers = 3 * torch.randn(count, 6, width, dtype=torch.float64)
    labels = torch.randint(5, (6,))
    if problem == "regression":
        labels = torch.randn(6, dtype=torch.float64)
    elif problem is not None:
        labels = torch.randint(2, (6, 5)).double()

    def loss(row: int, weights: Any) -> float:
        mixed = (torch.as_tensor(weights)[:, None] * answers[:, row]).sum(0)
        if problem is None:
            return float(F.cross_entropy(mixed, labels[row]))
        if problem == "regression":
            return float((mixed[0] - labels[row]) ** 2)
        return float(F.binary_cross_entropy_with_logits(mixed, labels[row], reduction="sum"))

    known = torch.ones(6, dtype=torch.bool)
    found = convex(answers, lambda answer: label_slope(answer, labels, known, problem))
    assert torch.allclose(found.sum(0), torch.ones(6, dtype=torch.float64))
    assert bool((found >= 0).all())
    for row in range(6):
        solved = minimize(
            lambda weights, row=row: loss(row, weights),
            np.full(count, 1 / count),
            method="SLSQP",
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
            options={"ftol": 1e-12},
        )
        assert loss(row, found[:, row]) <= solved.fun + 1e-4
        assert loss(row, found[:, row]) < loss(row, np.full(count, 1 / count)) + 1e-9


def test_rows_without_a_label_have_equal_weights() -> None:
    answers = torch.randn(2, 3, 4)
    known = torch.tensor([True, False, True])
    labels = torch.tensor([0, -100, 3])
    found = convex(answers, lambda answer: label_slope(answer, labels, known, None))
    assert found[:, 1].tolist() == [0.5, 0.5]
    assert torch.allclose(min_logit(answers, labels, known, None)[1], answers[:, 1].mean(0))


def test_min_logit_is_the_least_of_each_class() -> None:
    torch.manual_seed(0)
    answers, labels = torch.randn(3, 4, 5), torch.tensor([0, 4, 2, 2])
    found = min_logit(answers, labels, torch.ones(4, dtype=torch.bool), None)
    for row, label in enumerate(labels.tolist()):
        expected = [min(float(a[row, c] - a[row, label]) for a in answers) for c in range(5)]
        assert found[row].tolist() == pytest.approx(expected)
    # No member alone is as sure of the label as the answer that is made of all.
    losses = torch.stack([F.cross_entropy(a, labels, reduction="none") for a in answers])
    assert bool((F.cross_entropy(found, labels, reduction="none") <= losses.amin(0)).all())
    several = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]] * 4)
    found = min_logit(
        answers, several, torch.ones(4, dtype=torch.bool), "multi_label_classification"
    )
    assert torch.equal(found[:, 0], answers[..., 0].amax(0))
    assert torch.equal(found[:, 1], answers[..., 1].amin(0))


@pytest.mark.parametrize("task", ["single", "several", "words", "answers"])
@pytest.mark.parametrize("how", [{"weights": "convex"}, {"weights": "best"}, {}])
def test_what_is_made_by_labels_is_more_right_than_the_mean(task: str, how: dict[str, str]) -> None:
    """`{}` stands for min-logit: for the labels of every task, on labelled rows and tokens."""
    labels = TASKS[task][3]
    mean = {"kind": "ensemble", "of": "cohort", "mean": "logits", "name": "plain"}
    made = {**mean, "name": "made", **(how or {"mean": "min-logit"})}
    terms = [{"match": "labels", "learner": name} for name in ("plain", "made", "cohort")]
    plain, found, _ = values(
        learner(stage(terms, {"kind": "peers", "count": 2}, mean, made), task), labels
    )
    assert found < plain


# Who follows whom


def objectives(*terms: dict[str, Any]) -> set[tuple[str, str | None]]:
    companions = [{"kind": "peers", "count": 2}, {"kind": "copies"}]
    model = learner(stage(list(terms), *companions))
    return {(one.learner, one.source) for one in model.objectives}


def test_each_follows_the_next_one() -> None:
    term = {"match": "logits", "learner": "cohort", "teacher": "cohort", "follow": "next"}
    assert objectives(term) == {
        ("student", "peer-1"),
        ("peer-1", "peer-2"),
        ("peer-2", "student"),
    }


def test_each_follows_the_copies_of_others_or_its_own() -> None:
    term = {"match": "logits", "learner": "cohort", "teacher": "stale"}
    everyone = ("student", "peer-1", "peer-2")
    others = {(a, f"stale-{b}") for a, b in itertools.permutations(everyone, 2)}
    assert objectives(term) == others
    assert objectives({**term, "follow": "own"}) == {(a, f"stale-{a}") for a in everyone}


def test_nobody_to_follow() -> None:
    for term in (
        {"match": "logits", "learner": "student", "teacher": "stale-student"},
        {"match": "logits", "learner": "student", "teacher": "peer", "follow": "own"},
        {"match": "logits", "learner": "student", "teacher": "peer", "follow": "next"},
    ):
        with pytest.raises(ConfigError, match="lets student follow .*, which is nobody else"):
            objectives(term)


# Branches


BRANCHES = {"kind": "branches", "count": 2, "shared_layers": "1/2"}


@pytest.mark.parametrize("shared", [0, 1, "1/2", 3])
def test_a_branch_is_the_student_below_and_itself_above(shared: int | str) -> None:
    terms = [
        {"match": "labels", "learner": "cohort"},
        {"match": "hidden_states", "learner": "student", "teacher": "branch-2", "layers": [[4, 1]]},
        {"match": "hidden_states", "learner": "student", "teacher": "branch-1", "layers": [[4, 4]]},
    ]
    model = learner(stage(terms, {**BRANCHES, "shared_layers": shared}))
    labels, low, high = values(model)
    wholes = [model.student, grafted(model, 0), grafted(model, 1)]
    assert torch.allclose(labels, sum(F.cross_entropy(logits(one), LABELS) for one in wholes))
    states = [one(**BATCH, output_hidden_states=True).hidden_states for one in wholes]
    real = MASK.bool()
    assert torch.allclose(low, F.mse_loss(states[0][4][real], states[2][1][real]))
    assert torch.allclose(high, F.mse_loss(states[0][4][real], states[1][4][real]))


@pytest.mark.parametrize("model_type", ["roberta", "electra", "distilbert"])
def test_branches_of_other_architectures(model_type: str) -> None:
    def made(seed: int) -> Any:
        torch.manual_seed(seed)
        config = make_config(model_type, labels=CLASSES)
        return AutoModelForSequenceClassification.from_config(config).eval()

    student = made(0)
    setting = Setting(Shape.of(student.config), None, None)
    term = {"match": "labels", "learner": "branch-1"}
    model = Learner(student, stage([term], BRANCHES), setting, lambda _, seed: made(seed)).eval()
    # A branch with the student's own upper layers and head answers as the student does.
    branch = model.companions[0].models[0]
    own = {n: v for n, v in student.state_dict().items() if n in branch.state_dict()}
    branch.load_state_dict(own)
    with torch.no_grad():
        assert torch.allclose(values(model)[0], F.cross_entropy(logits(student), LABELS))
    values(model).sum().backward()
    unused = {n for n, p in branch.named_parameters() if p.grad is None}
    assert not unused, unused


def test_a_branch_starts_from_a_spec_of_the_student_s_shape() -> None:
    student = student_of("single", 0)
    setting = Setting(Shape.of(student.config), None, None)
    of = stage([{"match": "labels", "learner": "branch"}], {**BRANCHES, "student": "other"})
    seen: list[str | None] = []

    def make(layers: int) -> Callable[..., Any]:
        return lambda spec, seed: (
            seen.append(spec) or student_of("single", seed, num_hidden_layers=layers)  # type: ignore[func-returns-value]
        )

    Learner(student, of, setting, make(4))
    assert seen == ["other", "other"]
    message = (
        "branch of other is bert of 3 layers and 16 units, which cannot go on from the student"
    )
    with pytest.raises(ConfigError, match=message):
        Learner(student, of, setting, make(3))


def test_gradients_of_a_branch_reach_what_is_shared() -> None:
    model = learner(stage([{"match": "labels", "learner": "branch-1"}], BRANCHES))
    values(model).sum().backward()
    layers = {name.split("layer.")[1][0] for name in reached(model.student) if "layer." in name}
    assert layers == {"0", "1"}
    assert not any("classifier" in name for name in reached(model.student))
    first, second = model.companions[0].models
    assert "classifier.weight" in reached(first)
    assert not any("encoder" in name or "classifier" in name for name in reached(second))
    # A layer that is shared is there once, and every weight of a branch is of use.
    assert not any(".layer.0." in name or ".layer.1." in name for name in first.state_dict())
    assert all(p.grad is not None for p in first.parameters())


# Copies


def test_copies_are_renewed_every_so_many_steps() -> None:
    terms = [{"match": "logits", "teacher": "stale-peer-1"}]
    model = learner(stage(terms, {"kind": "peers"}, {"kind": "copies", "every": 3}))
    peer = model.companions[0].models[0]
    weight, seen = peer.classifier.bias, []
    for step in range(8):
        model.advance(step, 8)
        copied = model.companions[1].models[1].classifier.bias
        seen.append(float((weight - copied)[0].detach()))
        expected = kl(logits(model.student), logits(model.companions[1].models[1]))
        assert torch.allclose(values(model)[0], expected, atol=1e-6)
        with torch.no_grad():
            weight += 1
    assert seen == pytest.approx([0, 1, 2, 0, 1, 2, 0, 1], abs=1e-5)


def test_copies_have_no_dropout_and_learn_nothing() -> None:
    terms = [{"match": "logits", "teacher": "stale-peer-1"}]
    model = learner(stage(terms, {"kind": "peers"}, {"kind": "copies"}))
    expected = logits(model.companions[0].models[0])
    model.train()
    found = {}
    objective = model.objectives[0]
    objective.forward = lambda batch: (
        found.update(batch.sources)
        or batch.student.outputs[  # type: ignore[func-returns-value]
            "logits"
        ].sum()
    )
    values(model).sum().backward()
    assert torch.allclose(found["stale-peer-1"].outputs["logits"], expected, atol=1e-6)
    assert all(p.grad is None and not p.requires_grad for p in model.companions[1].parameters())


# Weights that are learned


def test_a_gate_reads_the_student_and_reaches_all() -> None:
    gate = {"kind": "gate", "layer": 2}
    model = learner(stage([{"match": "labels", "learner": "ensemble"}], BRANCHES, gate))
    value = values(model)[0]
    wholes = [model.student, grafted(model, 0), grafted(model, 1)]
    state = model.student(**BATCH, output_hidden_states=True).hidden_states[2][:, 0]
    linear = model.companions[1].gate
    weights = (state @ linear.weight.T + linear.bias).softmax(-1)
    mixed = sum(weights[:, i, None] * logits(one) for i, one in enumerate(wholes))
    assert torch.allclose(value, F.cross_entropy(mixed, LABELS))
    value.backward()
    assert "gate.weight" in reached(model.companions[1])
    for one in (model.student, *model.companions[0].models):
        assert "classifier.weight" in reached(one)


MIXED = [
    {"match": "logits", "learner": "peer", "teacher": "mixture", "follow": "own"},
    {"match": "logits", "loss": "reverse_kl", "learner": "mixture", "teacher": "peer"}
    | {"follow": "own", "temperature": 2},
]


def mixtures_by_hand(model: Learner, models: list[Any]) -> list[Tensor]:
    attention = model.companions[1]
    looks, seen = (one["16"].weight for one in (attention.looks, attention.seen))
    states = [m(**BATCH, output_hidden_states=True).hidden_states[-1][:, 0] for m in models]
    answers = [logits(one) for one in models]
    mixed = []
    for a in range(len(models)):
        rows = []
        for row in range(3):
            energy = [float((looks @ states[a][row]) @ (seen @ h[row])) for h in states]
            weights = torch.tensor(energy).softmax(-1)
            rows.append(sum(w * z[row] for w, z in zip(weights, answers, strict=True)))
        mixed.append(torch.stack(rows))
    return mixed


def test_each_peer_has_a_mixture_of_its_own() -> None:
    model = learner(stage(MIXED, {"kind": "peers", "count": 3}, {"kind": "mixtures", "width": 4}))
    first, second = values(model)
    peers = list(model.companions[0].models)
    mixed = mixtures_by_hand(model, peers)
    pairs = list(zip(map(logits, peers), mixed, strict=True))
    assert torch.allclose(first, sum(kl(z, m) for z, m in pairs), atol=1e-5)
    assert torch.allclose(second, sum(kl(z, m, 2.0) for z, m in pairs), atol=1e-5)


def test_attention_learns_by_its_mixtures_alone() -> None:
    companions = {"kind": "peers", "count": 2}, {"kind": "mixtures"}
    follows, trains = (learner(stage([term], *companions)) for term in MIXED)
    values(follows).sum().backward()
    assert not reached(follows.companions[1]) and not reached(follows.student)
    assert "classifier.weight" in reached(follows.companions[0].models[0])
    values(trains).sum().backward()
    assert reached(trains.companions[1]) == {"looks.16.weight", "seen.16.weight"}
    assert not reached(trains.companions[0])


def test_the_other_way_of_a_divergence() -> None:
    from distill.losses.distributions import sigmoid_reverse_kl, softmax_reverse_kl

    torch.manual_seed(0)
    s, t = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    found = softmax_reverse_kl(s, t, 2.0)
    assert torch.allclose(found.mean(), kl(t, s, 2.0))
    found.sum().backward()
    assert t.grad is None and s.grad is not None
    p, q = (torch.distributions.Bernoulli(logits=x / 2) for x in (s, t))
    expected = 4 * torch.distributions.kl_divergence(p, q).sum(-1)
    assert torch.allclose(sigmoid_reverse_kl(s, t, 2.0), expected, atol=1e-6)


# Fusion and discriminators


def test_fused_states_are_classified_and_reach_all() -> None:
    fusion = {"kind": "fusion", "width": 6}
    model = learner(stage([{"match": "labels", "learner": "fused"}], {"kind": "peers"}, fusion))
    value = values(model)[0]
    models, fused = [model.student, model.companions[0].models[0]], model.companions[1]
    states = [m(**BATCH, output_hidden_states=True).hidden_states[-1][:, 0] for m in models]
    joined = torch.cat(states, -1) @ fused.fuse.weight.T + fused.fuse.bias
    answers = F.gelu(joined) @ fused.classifier.weight.T + fused.classifier.bias
    assert fused.fuse.weight.shape == (6, 32)
    assert torch.allclose(value, F.cross_entropy(answers, LABELS), atol=1e-6)
    value.backward()
    assert reached(fused) == {name for name, _ in fused.named_parameters()}
    for one in models:
        assert any("layer.3" in name for name in reached(one))
        assert not any("classifier" in name for name in reached(one))


ADVERSARIAL = {"match": "adversarial", "teacher": "peer-1"}


def discriminated(judge: Any, states: Tensor) -> Tensor:
    rows = []
    for state, length in zip(states, MASK.sum(1).tolist(), strict=True):
        found = F.leaky_relu(judge.tokens(state[:length]), 0.2)
        rows.append(torch.sigmoid(judge.text(found.mean(0)))[0])
    return torch.stack(rows)


def test_each_side_of_an_adversarial_term_has_its_own_gradient() -> None:
    model = learner(stage([ADVERSARIAL], {"kind": "peers"}))
    judge = model.objectives[0].discriminators[0]
    peer = model.companions[0].models[0]
    theirs = peer(**BATCH, output_hidden_states=True).hidden_states[-1].detach()
    ours = model.student(**BATCH, output_hidden_states=True).hidden_states[-1]
    judges = (1 - discriminated(judge, theirs)) ** 2 + discriminated(judge, ours.detach()) ** 2
    deceives = (1 - discriminated(judge, ours)) ** 2
    value = values(model)[0]
    assert torch.allclose(value, (judges + deceives).mean(), atol=1e-6)
    value.backward()
    assert not reached(peer)
    expected = torch.autograd.grad(judges.mean(), list(judge.parameters()))
    for parameter, gradient in zip(judge.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    # Of the states alone: heads have no part in it.
    learns = [p for n, p in model.student.named_parameters() if "layer.3" in n]
    expected = torch.autograd.grad(deceives.mean(), learns)
    for parameter, gradient in zip(learns, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


# Recipes


def total(name: str, progress: float = 1.0) -> tuple[Learner, float]:
    """A recipe's learner without dropout, and the sum of its weighted terms after `progress`."""
    model = learner(load_recipe(name).stages[0])
    model.advance(round(10 * progress), 10)
    return model, float((values(model) * model.weights).sum().detach())


def entropies(*answers: Tensor) -> Tensor:
    found: Tensor = sum(F.cross_entropy(z, LABELS) for z in answers)  # type: ignore[assignment]
    return found


def both(model: Learner) -> list[Tensor]:
    return [logits(one) for one in (model.student, model.companions[0].models[0])]


def test_total_of_dml() -> None:
    model, found = total("dml")
    a, b = both(model)
    assert found == pytest.approx(float(entropies(a, b) + kl(a, b) + kl(b, a)), rel=1e-5)


def test_total_of_kdcl() -> None:
    model, found = total("kdcl")
    a, b = (z.detach() for z in both(model))
    rows = []
    for row in range(3):
        shares = torch.linspace(0, 1, 20001)[:, None]
        mixed = shares * a[row] + (1 - shares) * b[row]
        rows.append(
            mixed[F.cross_entropy(mixed, LABELS[row].expand(20001), reduction="none").argmin()]
        )
    taught = torch.stack(rows)
    expected = entropies(a, b) + kl(a, taught, 2) + kl(b, taught, 2)
    assert found == pytest.approx(float(expected), rel=1e-3)


def test_total_of_okddip() -> None:
    model, found = total("okddip")
    branches = [grafted(model, i) for i in range(3)]
    mixed = mixtures_by_hand(model, branches)
    leader, peers = logits(model.student), [logits(one) for one in branches]
    expected = entropies(leader, *peers)
    # Once for the branches, and once more for the attention.
    expected += 2 * sum(kl(z, m, 3) for z, m in zip(peers, mixed, strict=True))
    expected += sum(kl(leader, z, 3) for z in peers) / 3
    assert found == pytest.approx(float(expected), rel=1e-4)
    _, before = total("okddip", 0.0)
    assert before == pytest.approx(float(entropies(leader, *peers)), rel=1e-5)


def test_total_of_one() -> None:
    model, found = total("one")
    answers = [logits(one) for one in (model.student, grafted(model, 0), grafted(model, 1))]
    state = model.student(**BATCH, output_hidden_states=True).hidden_states[2][:, 0]
    weights = model.companions[1].gate(state).softmax(-1)
    taught = torch.einsum("bm,mbc->bc", weights, torch.stack(answers))
    expected = entropies(*answers, taught) + sum(kl(z, taught, 3) for z in answers)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_total_of_feature_fusion() -> None:
    model, found = total("feature-fusion")
    models = [model.student, grafted(model, 0)]
    states = [m(**BATCH, output_hidden_states=True).hidden_states[-1][:, 0] for m in models]
    part = model.companions[1]
    fused = part.classifier(F.gelu(part.fuse(torch.cat(states, -1))))
    a, b = map(logits, models)
    expected = entropies(a, b, fused) + kl(fused, (a + b) / 2, 3)
    expected += kl(a, fused, 3) + kl(b, fused, 3)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_total_of_afd() -> None:
    model, found = total("afd")
    a, b = both(model)
    states = [
        one(**BATCH, output_hidden_states=True).hidden_states[-1]
        for one in (model.student, model.companions[0].models[0])
    ]
    expected = entropies(a, b) + kl(a, b, 3) + kl(b, a, 3)
    for one in (o for o in model.objectives if hasattr(o, "discriminators")):
        ours, theirs = states if one.learner == "student" else states[::-1]
        judge = one.discriminators[0]
        said, real = discriminated(judge, ours), discriminated(judge, theirs)
        expected += ((1 - real) ** 2 + said**2 + (1 - said) ** 2).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_total_of_codistill() -> None:
    model, found = total("codistill", 0.2)
    a, b = both(model)
    x, y = (logits(one) for one in model.companions[1].models)
    expected = float(entropies(a, b) + kl(a, y) + kl(b, x))
    assert found == pytest.approx(expected, rel=1e-5)
    _, burning_in = total("codistill", 0.1)
    assert burning_in == pytest.approx(float(entropies(a, b)), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "task"),
    [(n, t) for n in NAMES for t in TASKS if (n, t) != ("feature-fusion", "tokens")],
)
def test_every_recipe_serves_every_task(name: str, task: str) -> None:
    """Padding changes nothing, and every weight that is trained gets a gradient."""
    model = learner(load_recipe(name).stages[0], task)
    model.advance(1, 1)
    labels = TASKS[task][3]
    found = values(model, labels)
    assert bool(torch.isfinite(found).all())
    (found * model.weights).sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = {n for n, p in trained.items() if p.grad is None}
    assert not without, without
    assert all(bool(torch.isfinite(p.grad).all()) for p in trained.values() if p.grad is not None)
    longer = {name: F.pad(value, (0, 2)) for name, value in BATCH.items()}
    padded = F.pad(labels, (0, 2), value=-100) if task in {"words", "tokens"} else labels
    totals = model.totals(model.tally({**longer, "labels": padded}))
    assert torch.allclose(model(longer, padded, None, totals), found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["afd", "feature-fusion", "kdcl", "codistill"])
def test_peers_of_another_shape(name: str) -> None:
    of = load_yaml(recipe_file(name))["stages"][0]
    _, *others = of["companions"]
    peers = {"kind": "peers", "student": "narrow"}
    assert _trains(Stage.build({**of, "companions": [peers, *others]}, where="recipe"))


def test_mixtures_of_peers_of_two_shapes() -> None:
    peers = [
        {"kind": "peers", "student": "narrow", "name": "slim"},
        {"kind": "peers", "name": "same"},
    ]
    terms = [
        {"match": "labels", "learner": "cohort"},
        *({**term, "learner": "cohort", "teacher": "mixture"} for term in MIXED[:1]),
        {**MIXED[1], "teacher": "cohort"},
    ]
    model = _trains(stage(terms, *peers, {"kind": "mixtures", "of": "cohort"}))
    assert set(model.companions[2].looks) == {"8", "16"}


def _trains(of: Stage) -> Learner:
    student = student_of("single", 0)
    narrow = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    setting = Setting(Shape.of(student.config), None, None)
    model = Learner(
        student,
        of,
        setting,
        lambda spec, seed: student_of("single", seed, **(narrow if spec else {})),
    )
    model.advance(1, 1)
    (values(model) * model.weights).sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    return model


# Refusals


@pytest.mark.parametrize(
    ("terms", "companions", "message"),
    [
        (
            [{"match": "logits", "teacher": "branch"}],
            [{"kind": "branches", "shared_layers": 4}],
            "shared_layers: 4 leaves branch no layer of its own: the student has 4",
        ),
        (
            [{"match": "logits", "teacher": "branch"}],
            [{"kind": "branches", "shared_layers": 5}],
            "5 of 4 layers are more than there are: name fewer",
        ),
        (
            [{"match": "attention_scores", "teacher": "branch-1"}],
            [{"kind": "branches"}],
            "needs the attention of the teacher, and bert as a branch gives none",
        ),
        (
            [{"match": "logits", "teacher": "stale", "learner": "branch"}],
            [{"kind": "branches"}, {"kind": "copies"}],
            "copies whole models that are trained here, and 'branch-1' is none: use of: student",
        ),
        (
            [{"match": "logits", "teacher": "ensemble"}],
            [{"kind": "ensemble", "of": "cohort", "weights": "convex"}],
            "weights: convex belongs to mean: logits",
        ),
        (
            [{"match": "logits", "teacher": "ensemble"}],
            [{"kind": "ensemble", "of": "cohort", "mean": "min-logit", "weights": "best"}],
            "mean: min-logit weighs nobody: leave out weights and drop",
        ),
        (
            [{"match": "logits", "teacher": "ensemble"}],
            [{"kind": "gate"}, {"kind": "branches"}],
            "companion 'ensemble' of stage 'train' is made of 'branch-1', who comes after it: list",
        ),
        (
            [{"match": "logits", "teacher": "ensemble"}],
            [{"kind": "peers"}, {"kind": "gate"}, {"kind": "ensemble", "of": "cohort"}],
            "stage 'train' has two that are called 'ensemble': give a companion another name",
        ),
        (
            [{"match": "hidden_states", "teacher": "fused"}],
            [{"kind": "peers"}, {"kind": "fusion"}],
            "fused is made of several and has answers only, no layers to compare",
        ),
    ],
)
def test_what_cannot_be(
    terms: list[dict[str, Any]], companions: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(stage(terms, *companions))


def test_a_score_has_no_margin() -> None:
    made = {"kind": "ensemble", "of": "cohort", "mean": "min-logit"}
    terms = [{"match": "logits", "teacher": "ensemble"}]
    with pytest.raises(ConfigError, match="one logit and no margin for mean: min-logit: use mean"):
        learner(stage(terms, {"kind": "peers"}, made), "score")


def test_hidden_tokens_are_not_classified_by_fused_states() -> None:
    torch.manual_seed(0)
    student = AutoModelForMaskedLM.from_config(make_config("bert"))
    setting = Setting(Shape.of(student.config), None, None, "fill-mask")
    of = stage([{"match": "labels", "learner": "fused"}], {"kind": "peers"}, {"kind": "fusion"})
    with pytest.raises(ConfigError, match="fused classifies, and fill-mask does not: use kind: en"):
        Learner(student, of, setting, lambda *_: student)


def test_layers_that_cannot_be_shared() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = AlbertConfig(vocab_size=17, embedding_size=8, num_hidden_layers=2, **sizes)
    student = AlbertForSequenceClassification(config)
    setting = Setting(Shape.of(config), None, None)
    of = stage([{"match": "labels", "learner": "branch"}], BRANCHES)
    with pytest.raises(ConfigError, match="albert has no list of layers .* use kind: peers"):
        Learner(student, of, setting, lambda *_: AlbertForSequenceClassification(config))


# Runs


def settings(taught: Path, data: dict[str, Path], output: Path, **more: Any) -> DistillConfig:
    values = {
        "teacher": str(taught),
        "student": "layers=2",
        "train": str(data["train"]),
        "batch_size": 8,
        "learning_rate": 1e-3,
        "output": output,
    }
    return DistillConfig.build({**values, **more})


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_leaves_a_plain_student(
    name: str, taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors import safe_open

    output = tmp_path / "out"
    more = {"eval": str(data["eval"]), "recipe": name, "epochs": 2}
    result = distill(settings(taught, data, output, **more))
    assert result.metric == "accuracy" and result.value is not None
    model, info = AutoModelForSequenceClassification.from_pretrained(
        output, output_loading_info=True
    )
    assert model.config.num_hidden_layers == 2
    assert not info["missing_keys"] and not info["unexpected_keys"]
    (weights,) = output.glob("*.safetensors")
    with safe_open(weights, "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    header = (output / "training_log.csv").read_text().splitlines()[0].split(",")
    terms = load_recipe(name).stages[0].terms
    assert sum(
        column.partition("_")[0] in {"labels", "logits", "adversarial"} for column in header
    ) == len(terms)
    assert not output.with_name("out.training").exists()


SHORT = """
name: short
summary: s
stages:
- companions:
  - {kind: peers}
  - {kind: copies, every: 4}
  terms:
  - {match: labels, learner: cohort}
  - match: logits
    learner: cohort
    teacher: stale
    weight: {start: 0, end: 1, shape: step, until: 0.4}
"""


@pytest.mark.parametrize("name", ["short", "okddip", "feature-fusion", "afd"])
def test_a_run_that_is_stopped_ends_where_a_whole_one_does(
    name: str,
    taught: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped between two renewals of the copies, with weights that rise."""
    recipe = tmp_path / "short.yaml"
    recipe.write_text(SHORT)
    more = {"recipe": str(recipe) if name == "short" else name, "epochs": 2, "save_seconds": 0}
    distill(settings(taught, data, tmp_path / "whole", **more))
    step: Callable[..., Any] = DistillTrainer.training_step
    count = 0

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(DistillTrainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        distill(settings(taught, data, tmp_path / "stopped", **more))
    distill(settings(taught, data, tmp_path / "stopped", **more))
    assert count == 8 + 12 - 7
    whole, stopped = (tmp_path / part / "model.safetensors" for part in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
