"""Terms on layers, on tiny models: what they need, what they refuse, what they follow."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.objectives import OBJECTIVES, Batch, Learner, Setting, Shape
from distill.recipe.config import Stage
from distill.signals.capture import LiveTeacher, Need, Signals
from edge.errors import ConfigError
from tests.distill.conftest import make_config

VALUE = {"match": "relations", "of": "value"}
PROBS = {"match": "attention_probs"}
SCORES = {"match": "attention_scores"}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
SHAPE = Shape(layers=2, width=8, architecture="bert", attention=(2, 8))
GENERATOR = torch.Generator().manual_seed(1)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def objective(
    values: dict[str, Any],
    *,
    student: Shape = SHAPE,
    teacher: Shape = SHAPE,
) -> Any:
    term = Stage.model_validate({"terms": [values]}).terms[0]
    return OBJECTIVES[term.match](term, Setting(student, teacher, None))


TWELVE = Shape(layers=12, width=24, architecture="bert", attention=(12, 24))
BILSTM = Shape(layers=1, width=8, architecture="bilstm")


@pytest.mark.parametrize(
    ("term", "student", "message"),
    [
        (PROBS, SHAPE, "attention_probs compares head by head, and the student has 2 heads where "
         "the teacher has 12: give it as many with --student heads=12, or say heads: common"),
        (SCORES, SHAPE, "attention_scores compares head by head"),
        (VALUE, SHAPE, "relations compares head by head"),
        ({**VALUE, "heads": 5}, SHAPE, "cannot cut the 8 units of the student's attention and the "
         "teacher's 24 into 5 heads: use a divisor of 8, or heads: auto"),
        (PROBS, BILSTM, "needs the attention of the student, and bilstm gives none: use match: "
         "logits or hidden_states"),
        ({**VALUE, "heads": 2}, BILSTM, "needs the attention of the student"),
        ({**VALUE, "layers": [[3, 1]], "heads": 2}, SHAPE, "the student has layers 1 to 2"),
        ({**SCORES, "layers": [[1, 13]]}, SHAPE, "the teacher has layers 1 to 12"),
        ({"match": "flow", "layers": [[1, 13]]}, SHAPE, "the teacher has layers 1 to 12"),
    ],
)  # fmt: skip
def test_models_that_a_term_does_not_fit(
    term: dict[str, Any], student: Shape, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        objective(term, student=student, teacher=TWELVE)
    assert "\n" not in str(found.value)


def test_a_teacher_without_attention() -> None:
    with pytest.raises(ConfigError, match="needs the attention of the teacher, and bilstm"):
        objective({**VALUE, "heads": "auto"}, teacher=BILSTM)


@pytest.mark.parametrize(
    ("widths", "heads"), [((384, 768), 48), ((128, 384), 32), ((312, 768), 24), ((7, 9), 1)]
)
def test_relation_heads_that_fit_both(widths: tuple[int, int], heads: int) -> None:
    shapes = [Shape(2, width, "bert", (1, width)) for width in widths]
    term = objective({**VALUE, "heads": "auto"}, student=shapes[0], teacher=shapes[1])
    assert term.heads == heads


@pytest.mark.parametrize("heads", [(4, 12), (12, 4), (9, 6), (5, 2), (3, 3)])
@pytest.mark.parametrize("match", ["attention_scores", "attention_probs"])
def test_heads_that_both_models_have_in_common(match: str, heads: tuple[int, int]) -> None:
    """Neighbouring heads of each model count as one that has their mean scores."""
    ours, theirs = (random(2, count, 5, 5) for count in heads)
    shapes = [Shape(2, 180, "bert", (count, 180)) for count in heads]
    term = {"match": match, "layers": [[2, 2]]}
    found = objective({**term, "heads": "common"}, student=shapes[0], teacher=shapes[1])
    joined = []
    for scores in (ours, theirs):
        size = scores.shape[1] // math.gcd(*heads)
        runs = scores.split(size, dim=1)
        joined.append(torch.stack([sum(run.unbind(1)) / size for run in runs], 1))
    same = [Shape(2, 180, "bert", (math.gcd(*heads), 180))] * 2
    plain = objective(term, student=same[0], teacher=same[1])

    def value(term: Any, ours: Tensor, theirs: Tensor) -> float:
        signals = [Signals({}, attention_scores={2: scores}) for scores in (ours, theirs)]
        totals = {"tokens": MASK.sum()}
        return float(term(Batch(signals[0], {"teacher": signals[1]}, None, MASK, totals)))

    assert value(found, ours, theirs) == pytest.approx(value(plain, *joined), rel=1e-5)


def test_relation_heads_that_both_models_have_in_common() -> None:
    shapes = [Shape(2, width, "bert", (count, width)) for count, width in ((4, 128), (12, 384))]
    term = objective({**VALUE, "heads": "common"}, student=shapes[0], teacher=shapes[1])
    assert term.heads == 4


def kl(student: Tensor, teacher: Tensor) -> float:
    p, log_q = teacher.double().softmax(-1), student.double().log_softmax(-1)
    return float((p * (p.log() - log_q)).sum())


class Pair:
    """Two tiny BERTs without dropout and one batch of two texts."""

    def __init__(self, **changes: Any) -> None:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(2)
        plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        configs = make_config("bert", **plain, **changes), make_config("bert", **plain)
        configs[0].num_hidden_layers = 2
        build = AutoModelForSequenceClassification.from_config
        self.student, self.teacher = (build(config) for config in configs)

    def learner(self, *terms: dict[str, Any]) -> Learner:
        torch.manual_seed(0)
        shapes = [Shape.of(model.config) for model in (self.student, self.teacher)]
        stage = Stage.model_validate({"terms": terms})
        return Learner(copy.deepcopy(self.student), stage, Setting(*shapes, None))

    def run(self, learner: Learner, extra: int = 0, rows: slice = slice(None)) -> Tensor:
        ids = torch.tensor([[2, 7, 9, 14, 3], [2, 6, 3, 0, 0]])
        ids = torch.nn.functional.pad(ids, (0, extra))
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        labels = torch.tensor([0, 1])
        totals = learner.totals(learner.tally({**inputs, "labels": labels}))
        part = {name: value[rows] for name, value in inputs.items()}
        taught = LiveTeacher(self.teacher, learner.needs)(part)
        return learner(part, labels[rows], taught, totals)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


@pytest.fixture(scope="module")
def narrow() -> Pair:
    return Pair(hidden_size=8)


INSIDE: list[dict[str, Any]] = [
    SCORES,
    {**SCORES, "layers": "emd"},
    PROBS,
    VALUE,
    {**VALUE, "of": "query-key", "heads": 4},
    {**VALUE, "of": "query", "heads": "auto"},
    {**VALUE, "of": "key", "heads": 1, "layers": "uniform"},
    {"match": "hidden_states", "layers": "emd"},
    {"match": "embeddings"},
    {"match": "flow"},
    {"match": "selectivity"},
    {"match": "contrastive"},
]


@pytest.mark.parametrize("world", ["pair", "narrow"])
@pytest.mark.parametrize("term", INSIDE, ids=lambda term: "-".join(map(str, term.values())))
def test_terms_on_models(term: dict[str, Any], world: str, request: Any) -> None:
    """Padding changes nothing, and the student gets a finite gradient."""
    models: Pair = request.getfixturevalue(world)
    learner = models.learner(term)
    value = models.run(learner)
    assert value.shape == (1,) and value.item() > 1e-6
    assert models.run(learner, extra=6).item() == pytest.approx(value.item(), rel=1e-4)
    value.sum().backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


@pytest.mark.parametrize(
    "term",
    [term for term in INSIDE if term["match"] != "contrastive"],
    ids=lambda term: "-".join(map(str, term.values())),
)
def test_parts_of_a_batch_add_up(pair: Pair, term: dict[str, Any]) -> None:
    learner = pair.learner(term)
    with torch.no_grad():
        parts = [pair.run(learner, rows=slice(row, row + 1)) for row in range(2)]
        torch.testing.assert_close(sum(parts), pair.run(learner), rtol=1e-4, atol=1e-7)


def test_only_needed_layers_are_asked_for(pair: Pair) -> None:
    learner = pair.learner(VALUE, {**PROBS, "layers": [[1, 3]]}, {"match": "flow"})
    assert learner.needs == {
        *(Need("values", 4), Need("attention_scores", 3)),
        *(Need("hidden_states", layer) for layer in (0, 2, 4)),
    }


def test_v1_relations_are_those_of_the_last_layers(pair: Pair) -> None:
    """Of the models' own tensors, through Transformers' modules and no recorder."""
    learner = pair.learner(VALUE)
    found = pair.run(learner).item()
    ids = torch.tensor([[2, 7, 9, 14, 3], [2, 6, 3, 0, 0]])
    vectors = []
    for model in (pair.student, pair.teacher):
        value = model.bert.encoder.layer[-1].attention.self.value
        seen: list[Tensor] = []
        handle = value.register_forward_hook(lambda *args, seen=seen: seen.append(args[-1]))
        with torch.no_grad():
            model.eval()(input_ids=ids, attention_mask=(ids > 0).long())
        handle.remove()
        vectors.append(seen[0].double())
    total = 0.0
    for row, length in enumerate((5, 3)):
        ours, theirs = (v[row, :length].view(length, 2, 8).transpose(0, 1) for v in vectors)
        for s, t in zip(ours, theirs, strict=True):
            relation = [x @ x.T / math.sqrt(8) for x in (s, t)]
            total += sum(kl(*rows) for rows in zip(*relation, strict=True)) / 2
    assert found == pytest.approx(total / 8, rel=1e-4)


def test_a_window_is_compared_where_both_look() -> None:
    """What a layer does not look at is no part of its distribution."""
    ours, theirs = random(1, 2, 4, 4), random(1, 2, 4, 4)
    near = (torch.arange(4)[:, None] - torch.arange(4)).abs() <= 1
    student = Signals({}, attention_scores={2: ours})
    teacher = Signals({}, attention_scores={2: theirs}, attended={2: near[None, None]})
    mask = torch.ones(1, 4)
    batch = Batch(student, {"teacher": teacher}, None, mask, {"tokens": mask.sum()})
    found = objective({**PROBS, "layers": [[2, 2]]})(batch).item()
    rows = [(head, q, near[q]) for head in range(2) for q in range(4)]
    expected = sum(kl(ours[0, h, q][k], theirs[0, h, q][k]) for h, q, k in rows) / 8
    assert found == pytest.approx(expected, rel=1e-5)


def test_means_of_texts_in_other_tokens() -> None:
    """Each model's own tokens count, as many as it has."""
    ours, theirs = random(2, 5, 8), random(2, 3, 8)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    said = Signals({}, hidden_states={2: ours}), Signals({}, hidden_states={2: theirs})
    totals = {"samples": torch.tensor(2.0)}
    batch = Batch(said[0], {"teacher": said[1]}, None, MASK, totals, {"teacher": mask})
    term = {"match": "hidden_states", "tokens": "mean", "layers": [[2, 2]]}
    means = [(ours[0].mean(0), theirs[0, :2].mean(0)), (ours[1, :3].mean(0), theirs[1].mean(0))]
    expected = sum(float((s - t).square().mean()) for s, t in means) / 2
    assert objective(term)(batch).item() == pytest.approx(expected, rel=1e-5)


def test_schedules_follow_the_step(pair: Pair) -> None:
    temperature = {"start": 8, "end": 2, "until": 0.5}
    learner = pair.learner(
        {"match": "logits", "temperature": temperature, "weight": {"start": 1, "end": 0}},
        {"match": "labels", "weight": {"start": 0, "end": 3, "shape": "step"}},
        {"match": "hidden_states", "weight": 2},
    )
    assert learner.weights.tolist() == [1, 0, 2]
    seen = []
    for step in (0, 25, 50, 100):
        learner.advance(step, 100)
        seen.append((learner.weights.tolist(), learner.objectives[0].temperature))
    assert seen == [
        ([1, 0, 2], 8),
        ([0.75, 0, 2], 5),
        ([0.5, 0, 2], 2),
        ([0, 3, 2], 2),
    ]
    with torch.no_grad():
        cold = pair.run(learner)[0].item()
        learner.advance(0, 100)
        warm = pair.run(learner)[0].item()
    assert warm != pytest.approx(cold, rel=1e-3)


def test_a_scheduled_temperature_of_a_contrastive_term(pair: Pair) -> None:
    learner = pair.learner({"match": "contrastive", "temperature": {"start": 1, "end": 0.1}})
    learner.advance(1, 2)
    assert learner.objectives[0].temperature == pytest.approx(0.55)


def test_two_sources_are_kept_apart() -> None:
    """A term reads its own source, by name."""
    term = objective({"match": "logits", "loss": "mse"})
    logits = torch.zeros(2, 3)
    sources = {"teacher": Signals({"logits": logits + 1}), "peers": Signals({"logits": logits + 5})}
    batch = Batch(Signals({"logits": logits}), sources, None, MASK, {"samples": torch.tensor(2.0)})
    assert term(batch).item() == 1
    term.source = "peers"
    assert term(batch).item() == 25


def test_what_nobody_speaks_to_starts_at_random(narrow: Pair) -> None:
    learner = narrow.learner({"match": "hidden_states"}, {"match": "embeddings"})
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    assert learner.watches and learner.settle([]) == []
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("match", ["hidden_states", "flow", "contrastive", "adversarial"])
def test_terms_start_near_what_they_follow(narrow: Pair, match: str) -> None:
    """Every projection of a term is fitted on what the term compares."""
    learner = narrow.learner({"match": match})
    ids = torch.randint(5, 15, (64, 6), generator=GENERATOR)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    taught = {"teacher": LiveTeacher(narrow.teacher, learner.needs)(inputs)}
    before = [module.weight.clone() for module in learner.objectives[0].projections]
    assert learner.settle([(inputs, None, taught)] * 2) == []
    first = slice(0, 1) if match == "contrastive" else slice(None)
    states = learner.student(**inputs, output_hidden_states=True).hidden_states
    for weight, projection, (s, t) in zip(
        before,
        learner.objectives[0].projections,
        getattr(learner.objectives[0], "pairs", ((0, 0), (1, 2), (2, 4))),
        strict=True,
    ):
        x, y = states[s][:, first], taught["teacher"].hidden_states[t][:, first]
        new, old = ((x @ w.T - y).square().mean() for w in (projection.weight, weight))
        assert new < min(old, y.square().mean())


def test_a_dynamic_map_is_no_part_of_the_student(narrow: Pair, tmp_path: Path) -> None:
    learner = narrow.learner({"match": "hidden_states", "layers": "emd"})
    assert len(learner.objectives[0].projections) == 1
    assert "objectives.0.transport.flow" in learner.state_dict()
    assert not any("transport" in name for name in learner.student.state_dict())
    assert not learner.objectives[0].transport.flow.requires_grad
