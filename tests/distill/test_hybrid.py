"""The student's layers inside the teacher: which ones, what learns, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from distill import DistillConfig, distill
from distill.objectives import Learner
from distill.recipe.config import Stage
from distill.signals.capture import capture
from distill.signals.shapes import Setting, Shape
from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from tests.distill.conftest import make_config

BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]),
    "attention_mask": torch.ones(2, 4, dtype=torch.long),
}
LABELS = torch.tensor([0, 1])
LOGITS = {"match": "logits", "loss": "mse", "learner": "hybrid"}
NONE = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def model(layers: int, seed: int, model_type: str = "bert", **changes: Any) -> Any:
    torch.manual_seed(seed)
    names = {"distilbert": "n_layers"}
    settings = {names.get(model_type, "num_hidden_layers"): layers, **changes}
    config = make_config(model_type, **settings)
    return AutoModelForSequenceClassification.from_config(config).eval()


def learner(student: Any, teacher: Any, terms: list[dict[str, Any]], **settings: Any) -> Learner:
    companion = {"kind": "hybrid", **settings.pop("companion", {})}
    stage = Stage.build({"terms": terms, "companions": [companion], **settings})
    shape = Shape.of(teacher.config) if teacher is not None else Shape(4, 16)
    setting = Setting(Shape.of(student.config), shape, None)
    return Learner(student, stage, setting, None, teacher)


def values(of: Learner, teacher: Any) -> torch.Tensor:
    with torch.no_grad():
        taught = capture(teacher, BATCH, of.needs)
    return of(BATCH, LABELS, taught, of.totals(of.tally({**BATCH, "labels": LABELS})))


def layers(of: Any) -> Any:
    return of.bert.encoder.layer if hasattr(of, "bert") else of.distilbert.transformer.layer


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_blocks_are_replaced_from_below(model_type: str) -> None:
    off = {} if model_type == "distilbert" else NONE
    teacher = model(4, 1, model_type, **off)
    student = model(2, 2, model_type, **off)
    states = {**LOGITS, "match": "hidden_states", "layers": "uniform"}
    of = learner(student, teacher, [LOGITS, states]).eval()
    for progress, built in ((0, (0, None)), (1, (0, 1))):
        of.advance(progress, 2)
        expected = model(4, 1, model_type, **off)
        blocks = [[layers(teacher)[2 * i], layers(teacher)[2 * i + 1]] for i in range(2)]
        for block, ours in enumerate(built):
            if ours is not None:
                blocks[block] = [layers(student)[ours]]
        del layers(expected)[:]
        layers(expected).extend([one for block in blocks for one in block])
        ends = [len(blocks[0]), len(blocks[0]) + len(blocks[1])]
        kept: dict[int, Any] = {}
        for i, one in enumerate(layers(expected)):
            one.register_forward_hook(
                lambda m, a, out, i=i, kept=kept: kept.__setitem__(i + 1, out)
            )
        with torch.no_grad():
            whole = teacher(**BATCH, output_hidden_states=True)
            mixed = expected(**BATCH)
        found = values(of, teacher).detach()
        assert torch.allclose(found[0], F.mse_loss(mixed.logits, whole.logits), rtol=1e-4)
        outputs = [kept[end][0] if isinstance(kept[end], tuple) else kept[end] for end in ends]
        theirs = [whole.hidden_states[2], whole.hidden_states[4]]
        distance = sum(F.mse_loss(a, b) for a, b in zip(outputs, theirs, strict=True)) / 2
        assert torch.allclose(found[1], distance, rtol=1e-4)
    # The teacher is itself again.
    assert len(layers(teacher)) == 4


def test_only_the_students_layers_learn() -> None:
    teacher, student = model(4, 1, **NONE), model(2, 2, **NONE)
    of = learner(student, teacher, [LOGITS], train="layers", unfreeze={"order": "up", "until": 1})
    of.train()
    of.advance(0, 2)
    values(of, teacher).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert layers(student)[0].output.dense.weight.grad.abs().max() > 0
    assert layers(student)[1].output.dense.weight.grad is None
    assert student.classifier.weight.grad is None
    assert not {name for name in of.state_dict() if name.startswith("companions")}
    assert not teacher.training and layers(student)[0].training


def test_blocks_are_drawn_with_the_probability_of_the_moment() -> None:
    share = {"start": 0.3, "end": 1, "until": 0.5}
    of = learner(model(4, 2), model(4, 1), [LOGITS], companion={"order": "random", "share": share})
    (hybrid,) = of.companions
    torch.manual_seed(0)
    drawn = torch.tensor([hybrid.replaced() for _ in range(400)]).float()
    # At least one: with four blocks the mean is a little above 0.3.
    assert 0.3 < drawn.mean() < 0.42 and bool((drawn.sum(1) >= 1).all())
    assert len({tuple(row) for row in drawn.tolist()}) == 15
    of.advance(1, 2)
    assert hybrid.replaced() == [True] * 4


@pytest.mark.parametrize(
    ("student", "teacher", "terms", "message"),
    [
        (model(2, 2, hidden_size=8), model(4, 1), [LOGITS], "of one architecture and width"),
        (model(2, 2, "electra"), model(4, 1), [LOGITS], "of one architecture and width"),
        (model(4, 2), model(2, 1), [LOGITS], "replaces the teacher's 2 layers by fewer"),
        (model(2, 2), None, [LOGITS], "is made of a teacher: name it with --teacher"),
    ],
)
def test_layers_that_do_not_fit(
    student: Any, teacher: Any, terms: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(student, teacher, terms)


@pytest.mark.parametrize("order", ["up", "random"])
def test_a_run_ends_in_a_plain_checkpoint(
    order: str, taught: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    recipe = "blockwise"
    if order == "random":
        text = (Path(__file__).parents[2] / "distill" / "recipes" / "blockwise.yaml").read_text()
        file = tmp_path / "theseus.yaml"
        file.write_text(
            text.replace(
                "order: up\n", "order: random\n        share: {start: 0.3, end: 1}\n"
            ).replace("    unfreeze: {order: up, until: 1, settled: 0}\n", "")
        )
        recipe = str(file)
    distill(
        DistillConfig(
            teacher=str(taught),
            student="layers=2",
            train=str(data["train"]),
            recipe=recipe,
            max_steps=3,
            batch_size=16,
            output=tmp_path / "out",
        )
    )
    assert open_checkpoint(str(tmp_path / "out")).config.num_hidden_layers == 2
    found, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.isfinite(found(**BATCH).logits).all()
