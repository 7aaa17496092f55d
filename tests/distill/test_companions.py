"""Models that take part beside student and teacher: who learns from whom, and by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from distill import DistillConfig, distill
from distill.objectives import Learner
from distill.recipe.config import Stage
from distill.signals.shapes import Setting, Shape
from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from tests.distill.conftest import make_config

BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]),
    "attention_mask": torch.ones(2, 4),
}
LABELS = torch.tensor([0, 1])


def make_student(spec: str | None, seed: int) -> Any:
    assert spec is None
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(make_config("bert")).eval()


def stage(terms: list[dict[str, Any]], *companions: dict[str, Any]) -> Stage:
    return Stage.build({"terms": terms, "companions": list(companions)}, where="recipe")


def learner(of: Stage) -> Learner:
    student = make_student(None, 0)
    setting = Setting(Shape.of(student.config), None, None)
    return Learner(student, of, setting, make_student)


def values(model: Learner) -> Tensor:
    return model(BATCH, LABELS, None, model.totals(model.tally({**BATCH, "labels": LABELS})))


MUTUAL = [
    {"match": "labels", "learner": "cohort"},
    {"match": "logits", "learner": "cohort", "teacher": "cohort"},
]


def test_a_cohort_learns_as_if_each_were_alone() -> None:
    model = learner(stage(MUTUAL, {"kind": "peers", "count": 2}))
    assert not model.needs
    labels, mutual = values(model)
    answers = [m(**BATCH).logits for m in (model.student, *model.companions[0].models)]
    assert torch.allclose(labels, sum(F.cross_entropy(a, LABELS) for a in answers))
    # Zhang et al. 2018, "Deep Mutual Learning", equation 6: the mean over the others.
    expected = sum(
        F.kl_div(a.log_softmax(-1), b.softmax(-1), reduction="batchmean") / 2
        for a in answers
        for b in answers
        if a is not b
    )
    assert torch.allclose(mutual, expected, atol=1e-6)


def test_who_is_followed_stands_still() -> None:
    model = learner(stage([{"match": "logits", "teacher": "peer-1"}], {"kind": "peers"}))
    values(model).sum().backward()
    assert all(p.grad is None for p in model.companions.parameters())
    assert model.student.classifier.weight.grad.abs().max() > 0


def test_a_peer_gives_what_terms_ask_of_it() -> None:
    terms = [{"match": "hidden_states", "teacher": "peer-1", "layers": [[1, 3]]}]
    model = learner(stage(terms, {"kind": "peers"}))
    ours = model.student(**BATCH, output_hidden_states=True).hidden_states[1]
    theirs = model.companions[0].models[0](**BATCH, output_hidden_states=True).hidden_states[3]
    assert torch.allclose(values(model)[0], F.mse_loss(ours, theirs), atol=1e-6)


def test_all_who_are_trained_are_one_cohort() -> None:
    of = stage(MUTUAL, {"kind": "peers"}, {"kind": "branches", "count": 1})
    assert of.who("cohort") == ("student", "peer-1", "branch-1")
    model = learner(of)
    assert {(one.learner, one.source) for one in model.objectives if one.source} == {
        (a, b) for a in of.who("cohort") for b in of.who("cohort") if a != b
    }


def test_nobody_else_to_follow() -> None:
    with pytest.raises(ConfigError, match="lets student follow student, which is nobody else"):
        learner(stage([{"match": "logits", "teacher": "student"}]))


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ConfigError, match="speaks of 'peer-3', and only cohort, peer, peer-1, "):
        stage([{"match": "logits", "teacher": "peer-3"}], {"kind": "peers", "count": 2})


def test_only_the_student_is_written(taught: Path, data: dict[str, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "mutual.yaml"
    recipe.write_text(
        """
        name: mutual
        summary: Two students, neither of which has a teacher.
        student: layers=2
        stages:
          - companions: [{kind: peers, student: "layers=1,init=random"}]
            terms:
              - {match: labels, learner: cohort}
              - {match: logits, learner: cohort, teacher: cohort}
        """
    )
    result = distill(
        DistillConfig(
            teacher=str(taught),
            train=str(data["train"]),
            eval=str(data["eval"]),
            recipe=str(recipe),
            epochs=1,
            output=tmp_path / "out",
        )
    )
    assert result.metric == "accuracy"
    assert open_checkpoint(str(tmp_path / "out")).config.num_hidden_layers == 2
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == 1
    header = (tmp_path / "out" / "training_log.csv").read_text().splitlines()[0]
    assert "labels" in header and "logits" in header
