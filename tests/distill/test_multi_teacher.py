"""Several teachers: how they become one, how each is followed, and who may teach together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from distill import DistillResult
from distill.companions.base import Cast, Scene
from distill.companions.ensemble import EnsembleAnswers, confidence
from distill.objectives import Learner
from distill.recipe.companions import Ensemble
from distill.recipe.config import Stage
from distill.signals.capture import Signals, capture
from distill.signals.shapes import Setting, Shape
from edge.errors import CheckpointError, ConfigError
from tests.distill.conftest import distil_tiny, make_config

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
INPUTS = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0], [2, 3, 0, 0]])}
INPUTS["attention_mask"] = MASK
NAMES = ("teacher-1", "teacher-2", "teacher-3")


def ensemble(
    *, task: str = "text-classification", problem: str | None = None, **settings: Any
) -> EnsembleAnswers:
    config = Ensemble.build({"kind": "ensemble", "name": "teacher", **settings})
    shape = Shape(2, 8)
    setting = Setting(shape, None, problem, task, dict.fromkeys(NAMES, shape))
    return EnsembleAnswers(config, Cast(None, setting, None, lambda name: NAMES))


def mean(
    companion: EnsembleAnswers,
    answers: list[Tensor],
    labels: Tensor | None = None,
    output: str = "logits",
) -> Tensor:
    said = {n: Signals({output: a}) for n, a in zip(NAMES, answers, strict=True)}
    return companion(Scene(INPUTS, labels, said))["teacher"].outputs[output]


def answers(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(shape, generator=generator) for _ in NAMES]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_following_the_mean_is_the_mean_of_following_each(temperature: float) -> None:
    from distill.losses.distributions import softmax_kl

    said = answers(3, 5)
    student = torch.randn(3, 5, requires_grad=True)
    whole = softmax_kl(student, mean(ensemble(temperature=temperature), said), temperature)
    each = torch.stack([softmax_kl(student, one, temperature) for one in said]).mean(0)
    (ours,) = torch.autograd.grad(whole.sum(), student)
    (theirs,) = torch.autograd.grad(each.sum(), student)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_is_averaged() -> None:
    said = answers(3, 5)
    expected = sum(one.softmax(-1) for one in said) / 3
    assert torch.allclose(mean(ensemble(), said).softmax(-1), expected, atol=1e-6)
    assert torch.allclose(mean(ensemble(mean="logits"), said), sum(said) / 3)
    several = mean(ensemble(problem="multi_label_classification", temperature=2.0), said)
    expected = sum((one / 2).sigmoid() for one in said) / 3
    assert torch.allclose((several / 2).sigmoid(), expected, atol=1e-6)
    scores = mean(ensemble(problem="regression", weights=(1, 1, 2)), answers(3, 1))
    assert torch.allclose(scores, (answers(3, 1)[0] + answers(3, 1)[1]) / 4 + answers(3, 1)[2] / 2)


def test_padding_takes_no_part_where_tokens_are_the_classes() -> None:
    said = answers(3, 4)
    config = ensemble(task="question-answering")
    signals = {
        name: Signals({"start_logits": one, "end_logits": one})
        for name, one in zip(NAMES, said, strict=True)
    }
    found = config(Scene(INPUTS, None, signals))["teacher"].outputs["start_logits"][2]
    expected = sum(one[2, :2].softmax(-1) for one in said) / 3
    assert torch.allclose(found[:2].softmax(-1), expected, atol=1e-6)
    assert bool(torch.isfinite(found).all())


def test_who_is_right_weighs_more_for_each_sample() -> None:
    said, labels = answers(3, 5), torch.tensor([1, 4, -100])
    found = mean(ensemble(weights="labels"), said, labels).softmax(-1)
    for row, label in enumerate(labels.tolist()):
        errors = [
            0.0 if label < 0 else float(F.cross_entropy(one[row], torch.tensor(label)))
            for one in said
        ]
        total = sum(np.exp(errors))
        weights = [(1 - np.exp(error) / total) / 2 for error in errors]
        assert sum(weights) == pytest.approx(1)
        expected = sum(w * one[row].softmax(-1) for w, one in zip(weights, said, strict=True))
        assert torch.allclose(found[row], expected, atol=1e-5), row


def test_who_is_sure_weighs_more_for_each_token() -> None:
    said = answers(3, 4, 5)
    found = mean(ensemble(task="token-classification", weights="entropy"), said).softmax(-1)
    entropies = torch.stack([torch.distributions.Categorical(logits=one).entropy() for one in said])
    weights = confidence(entropies).unsqueeze(-1)
    expected = sum(w * one.softmax(-1) for w, one in zip(weights, said, strict=True))
    assert torch.allclose(found, expected, atol=1e-5)
    # The one with the least entropy has the largest weight everywhere.
    assert torch.equal(weights.squeeze(-1).argmax(0), entropies.argmin(0))


def test_one_alone_at_each_step_and_the_same_one_again() -> None:
    said = answers(3, 5)
    alone = [one.log_softmax(-1) for one in said]

    def drawn() -> list[int]:
        torch.manual_seed(7)
        companion = ensemble(weights="random")
        found = []
        for step in range(30):
            companion.advance(step, step / 30)
            answer = mean(companion, said)
            (who,) = [i for i, one in enumerate(alone) if torch.allclose(answer, one, atol=1e-5)]
            found.append(who)
        return found

    assert drawn() == drawn()
    assert set(drawn()) == {0, 1, 2}


def test_some_are_left_out_of_a_step_and_never_all() -> None:
    said = answers(3, 5)
    torch.manual_seed(1)
    companion = ensemble(drop=0.9, weights=(0, 1, 1))
    seen = set()
    for step in range(40):
        companion.advance(step, 0.0)
        assert torch.isfinite(mean(companion, said)).all()
        seen.add(tuple(companion._active))
    assert len(seen) > 3 and all(any(active) for active in seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1, 2)}, "has 2 weights for 3 in teachers"),
        ({"weights": "entropy", "problem": "regression"}, "only probabilities have an entropy"),
        ({"weights": (0, 0, 0)}, "all weights are 0"),
        ({"weights": "acuracy"}, "weights"),
    ],
)
def test_weights_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ensemble(**settings)


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(make_config("bert")).eval()


def learner(terms: list[dict[str, Any]], count: int, *companions: dict[str, Any]) -> Learner:
    student = model(0)
    shape = Shape.of(student.config)
    several = dict.fromkeys(NAMES[:count], shape) if count > 1 else {}
    setting = Setting(shape, shape if count == 1 else None, None, others=several)
    stage = Stage.build({"terms": terms, "companions": list(companions)})
    return Learner(student, stage, setting)


def test_each_teacher_can_be_followed_by_name_or_all_of_them() -> None:
    terms = [
        {"match": "hidden_states", "teacher": "teacher-2", "layers": [[1, 3]]},
        {"match": "hidden_states", "teacher": "teachers", "layers": [[2, 2]]},
    ]
    of = learner(terms, 2)
    assert set(of.asked) == {"teacher-1", "teacher-2"}
    teachers = {name: model(i + 1) for i, name in enumerate(NAMES[:2])}
    inputs = {name: value[:1] for name, value in INPUTS.items()}
    taught = {name: capture(one, inputs, of.asked[name]) for name, one in teachers.items()}
    labels = torch.tensor([0])
    totals = of.totals(of.tally({**inputs, "labels": labels}))
    second, all_of_them = of(inputs, labels, taught, totals)
    ours = of.student(**inputs, output_hidden_states=True).hidden_states
    states = [m(**inputs, output_hidden_states=True).hidden_states for m in teachers.values()]
    assert torch.allclose(second, F.mse_loss(ours[1], states[1][3]), atol=1e-6)
    expected = sum(F.mse_loss(ours[2], each[2]) for each in states) / 2
    assert torch.allclose(all_of_them, expected, atol=1e-6)


def test_only_those_who_are_listened_to_are_asked() -> None:
    assert set(learner([{"match": "logits", "teacher": "teacher-2"}], 3).asked) >= {"teacher-2"}
    assert learner([{"match": "logits"}], 1).asked == {"teacher": frozenset()}


def test_an_ensemble_has_no_layers() -> None:
    with pytest.raises(ConfigError, match="made of several and has answers only.*teacher-1 or"):
        learner([{"match": "hidden_states"}], 2)


def test_a_teacher_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="speaks of 'teacher-3', and there is teacher-1 and "):
        learner([{"match": "logits", "teacher": "teacher-3"}], 2)
    with pytest.raises(ConfigError, match="there is one teacher, called teacher"):
        learner([{"match": "logits", "teacher": "teacher-2"}], 1)


@pytest.fixture(scope="module")
def second(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(seed=2, num_hidden_layers=3)


def run(data: dict[str, Path], folder: Path, teachers: list[Path], **changes: Any) -> DistillResult:
    own = {"student": "layers=2", "recipe": "multi-teacher", "batch_size": 16, "max_steps": 3}
    own |= {"teacher": [str(path) for path in teachers]}
    return distil_tiny(None, {"train": data["train"]}, folder, **{**own, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_run_with_two_teachers_live_and_cached(
    checkpoint: Path, second: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    teachers = [checkpoint, second]
    run(data, tmp_path / "live", teachers, eval=str(data["eval"]))
    run(data, tmp_path / "cached", teachers, teacher_cache=str(tmp_path / "cache"))
    live, cached = weights(tmp_path / "live"), weights(tmp_path / "cached")
    # No answer depends on the bias of keys: its gradient is rounding, which Adam blows up.
    assert {
        name
        for name, value in live.items()
        if not torch.allclose(value, cached[name], atol=1e-4) and not name.endswith("key.bias")
    } == set()
    folders = sorted((tmp_path / "cache").iterdir())
    assert len({json.loads((f / "cache.json").read_text())["identity"]["teacher"] for f in folders})
    assert len(folders) == 2
    record = json.loads((tmp_path / "live" / "distillation.json").read_text())
    assert len(record["made_from"]["teacher"]) == 2
    assert [one["name"] for one in record["teachers"]] == ["teacher-1", "teacher-2"]
    assert all(0 <= one["value"] <= 1 for one in record["teachers"])


def test_teachers_that_disagree(
    checkpoint: Path,
    make_checkpoint: Callable[..., Path],
    data: dict[str, Path],
    tmp_path: Path,
) -> None:
    other = make_checkpoint(labels=("positive", "negative"))
    with pytest.raises(CheckpointError, match="answer negative, positive and positive, negative"):
        run(data, tmp_path / "out", [checkpoint, other])
    strange = make_checkpoint()
    tokenizer = json.loads((strange / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (strange / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="read texts with different tokenizers"):
        run(data, tmp_path / "out", [checkpoint, strange])
    tagger = make_checkpoint(auto="AutoModelForTokenClassification")
    with pytest.raises(CheckpointError, match="do text-classification and token-classification"):
        run(data, tmp_path / "out", [checkpoint, tagger])
