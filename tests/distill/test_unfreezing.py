"""Which weights learn when: parts, one after the other, and each at its own rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.data.batches import Samples
from distill.objectives import Learner
from distill.recipe.config import Stage
from distill.recipe.parts import Unfreeze, turns
from distill.signals.shapes import Setting, Shape
from distill.training.trainer import DistillTrainer
from edge.errors import ConfigError
from edge.tokenization import Encoding, Tokenizer
from tests.distill.conftest import make_config, make_tokenizer

LABELS = [{"match": "labels"}]
EMBEDDINGS, HEAD = "bert.embeddings.", ("bert.pooler.", "classifier.")


def model(model_type: str = "bert", **changes: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(make_config(model_type, **changes))


def learner(student: Any, **settings: Any) -> tuple[Learner, Stage]:
    stage = Stage.build({"terms": LABELS, **settings})
    return Learner(student, stage, Setting(Shape.of(student.config), None, None)), stage


def learning(of: Learner) -> set[str]:
    """The parts that have gradients enabled."""
    found = set()
    for name, parameter in of.student.named_parameters():
        if parameter.requires_grad:
            place = name.split(".")
            layer = next((place[i + 1] for i, word in enumerate(place) if word == "layer"), None)
            found.add(str(int(layer) + 1) if layer else place[1 if place[0] == "bert" else 0])
    return found


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        ("all", {"embeddings", "1", "2", "3", "4", "pooler", "classifier"}),
        ("head", {"pooler", "classifier"}),
        ("layers", {"1", "2", "3", "4"}),
        (["head", -1], {"pooler", "classifier", "4"}),
        (["embeddings", 2], {"embeddings", "2"}),
        ("classifier", {"classifier"}),
    ],
)
def test_parts(train: Any, parts: set[str]) -> None:
    of, _ = learner(model(), train=train)
    assert learning(of) == parts


def test_what_never_learns_does_not_drop_out_and_learns_again_in_the_next_stage() -> None:
    student = model()
    of, _ = learner(student, train=["head", 4])
    of.train()
    assert not student.bert.embeddings.training and not student.bert.encoder.layer[2].training
    assert student.bert.encoder.layer[3].training and student.classifier.training
    again, _ = learner(student)
    again.train()
    assert len(learning(again)) == 7 and student.bert.embeddings.training


def test_a_stage_takes_back_only_what_a_stage_took() -> None:
    student = model()
    student.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    learner(student, train="head")
    learner(student)
    assert not student.bert.embeddings.position_embeddings.weight.requires_grad
    assert student.bert.embeddings.word_embeddings.weight.requires_grad


def test_one_part_after_the_other() -> None:
    # Six parts in half of 24 steps: a new one every second step.
    of, _ = learner(model(), unfreeze={"order": "down", "until": 0.5})
    top_down = [{"pooler", "classifier"}, {"4"}, {"3"}, {"2"}, {"1"}, {"embeddings"}]
    for step in range(24):
        of.advance(step, 24)
        expected = set().union(*top_down[: min(6, 1 + step // 2)])
        assert learning(of) == expected, step


def test_from_below_only_the_newest_at_the_whole_rate() -> None:
    of, _ = learner(model(), train="layers", unfreeze={"order": "up", "until": 1, "settled": 0.1})
    rates = [[of.pace.share(part, step / 8) for part in range(4)] for step in range(0, 8, 2)]
    assert rates == [[1, 0, 0, 0], [0.1, 1, 0, 0], [0.1, 0.1, 1, 0], [0.1, 0.1, 0.1, 1]]
    of, _ = learner(model(), train="layers", unfreeze={"order": "up", "until": 1, "settled": 0})
    of.advance(4, 8)
    assert learning(of) == {"3"}


def test_each_layer_at_a_share_of_the_one_above() -> None:
    of, _ = learner(model(), layer_decay=0.5)
    assert [of.pace.share(part, 0.0) for part in range(6)] == [2.0**-i for i in (5, 4, 3, 2, 1, 0)]
    of, _ = learner(model(), layer_decay=0.5, train=[2, "head"])
    assert [of.pace.share(part, 0.0) for part in range(2)] == [2.0**-3, 1]


def test_turns_last_alike() -> None:
    assert [turns(step / 12, 4) for step in range(13)] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 4
    assert Unfreeze(order="up", until=0.5).share(3, 4, 0.9) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 5}, "trains layer 5, and the student has layers 1 to 4"),
        ({"train": 0}, "trains layer 0"),
        ({"train": "headd"}, "trains 'headd', and the student has no such part.*bert, dropout"),
        ({"train": []}, "train"),
        ({"unfreeze": {"order": "sideways"}}, "unfreeze.order"),
        ({"layer_decay": 0}, "layer_decay"),
    ],
)
def test_parts_that_are_not_there(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(model(), **settings)


def test_an_architecture_that_shares_one_layer() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    albert = AlbertForSequenceClassification(
        AlbertConfig(
            vocab_size=17,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            embedding_size=8,
            intermediate_size=32,
        )
    )
    with pytest.raises(ConfigError, match="albert keeps no list of its layers"):
        learner(albert, train="head")


def samples(count: int = 16) -> Samples:
    random = np.random.default_rng(0)
    encodings = [
        Encoding([2, *random.integers(5, 17, random.integers(2, 6)).tolist(), 3])
        for _ in range(count)
    ]
    tokenizer = Tokenizer.of(make_tokenizer(), folder=Path())
    return Samples(encodings, random.integers(0, 2, count), tokenizer)


def trainer(folder: Path, student: Any, **settings: Any) -> DistillTrainer:
    of, stage = learner(
        student,
        **{"batch_size": 4, "epochs": 3, "learning_rate": 1e-2, "weight_decay": 0.1, **settings},
    )
    return DistillTrainer(of, stage=stage, samples=samples(), source=None, folder=folder)


def weights(of: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor], start: Sequence[str] | str) -> bool:
    start = (start,) if isinstance(start, str) else tuple(start)
    return any(not torch.equal(before[n], after[n]) for n in before if n.startswith(start))


def test_what_stands_still_is_neither_moved_nor_decayed(tmp_path: Path) -> None:
    student = model(hidden_dropout_prob=0.0)
    before = weights(student)
    trainer(tmp_path, student, train=["head", 3]).train()
    after = weights(student)
    assert moved(before, after, HEAD) and moved(before, after, "bert.encoder.layer.2.")
    assert not moved(before, after, (EMBEDDINGS, "bert.encoder.layer.3.", "bert.encoder.layer.0."))


def test_a_part_moves_from_its_turn_on(tmp_path: Path) -> None:
    student = model()
    before = weights(student)
    # Twelve steps, six parts: embeddings have the last two.
    run = trainer(tmp_path, student, unfreeze={"until": 1}, max_steps=None)
    run.args.max_steps = 12
    seen: list[tuple[bool, bool]] = []
    original = run.training_step

    def step(*args: Any, **options: Any) -> Any:
        now = weights(student)
        seen.append((moved(before, now, "bert.encoder.layer.3."), moved(before, now, EMBEDDINGS)))
        return original(*args, **options)

    run.training_step = step
    run.train()
    # Before step i, i - 1 are done; with a warm-up the first step of all has a rate of 0.
    assert [layer for layer, _ in seen] == [False] * 3 + [True] * 9
    assert not any(embeddings for _, embeddings in seen[:11])
    assert moved(before, weights(student), EMBEDDINGS)


def test_rates_are_shares_of_the_schedule(tmp_path: Path) -> None:
    run = trainer(tmp_path, model(), layer_decay=0.5, schedule="constant", warmup_ratio=0.0)
    run.create_optimizer()
    run.create_scheduler(12)
    rates = {group["part"]: group["lr"] for group in run.optimizer.param_groups}
    assert rates == {part: pytest.approx(1e-2 * 0.5 ** (5 - part)) for part in range(6)}
    decayed = {group["part"] for group in run.optimizer.param_groups if group["weight_decay"]}
    assert decayed == set(range(6))


@pytest.mark.parametrize(
    "settings",
    [
        {"unfreeze": {"order": "down", "until": 0.8}},
        {"train": "layers", "unfreeze": {"order": "up", "until": 1.0, "settled": 0.1}},
    ],
)
def test_a_run_that_is_resumed_ends_alike(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first state is needed, of three.
    monkeypatch.setattr("distill.training.states._KEPT", 3)
    through = model()
    run = trainer(tmp_path / "a", through, **settings)
    run.args.save_strategy, run.args.save_steps = "steps", 5
    run.args.save_total_limit = None
    run.train()
    resumed = model()
    again = trainer(tmp_path / "b", resumed, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_accumulation_gives_the_same_steps(tmp_path: Path) -> None:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = {"unfreeze": {"until": 1.0}, "layer_decay": 0.7, "schedule": "constant"}
    whole, parts = model(**still), model(**still)
    trainer(tmp_path / "a", whole, batch_size=8, **settings).train()
    trainer(tmp_path / "b", parts, batch_size=2, gradient_accumulation=4, **settings).train()
    for name, value in whole.state_dict().items():
        # No answer depends on the bias of keys: its gradient is rounding, which Adam blows up.
        if not name.endswith("key.bias"):
            assert torch.allclose(value, parts.state_dict()[name], atol=2e-4), name
