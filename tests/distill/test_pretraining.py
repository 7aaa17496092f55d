"""Recipes that learn from plain text, end to end: a general student, then a task."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import DistillResult, load_recipe
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny

WORDS = ("fine", "great", "awful", "poor", "film", "plot", "scene")
MOBILE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "embedding_size": 8,
    "intermediate_size": 16,
}
# How the teacher differs: wider inside its layers than between them, norms, a smooth activation.
INVERTED = {
    **MOBILE,
    "intra_bottleneck_size": 32,
    "intermediate_size": 64,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "hidden_act": "gelu",
}
MOBILE_STUDENT = "architecture=mobilebert,intra_bottleneck_size=8,intermediate=16"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word three to six times a line: any one of them tells the others."""
    choose, path = random.Random(0), tmp_path_factory.mktemp("texts") / "plain.txt"
    lines = [" ".join([choose.choice(WORDS)] * choose.randrange(3, 7)) for _ in range(96)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def run(texts: Path, tmp_path: Path) -> Callable[..., DistillResult]:
    """Distill at tiny size; keywords replace settings."""
    own = {"epochs": 6, "batch_size": 4, "learning_rate": 5e-3}

    def run_to(output: str, **changes: Any) -> DistillResult:
        return distil_tiny(None, {"train": texts}, tmp_path / output, **{**own, **changes})

    return run_to


@pytest.fixture(scope="module")
def teacher(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(auto="AutoModelForMaskedLM", initializer_range=0.1)


def log_of(folder: Path, stage: str) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == stage and row["loss"]]


def falls(rows: list[dict[str, str]], term: str) -> bool:
    values = [float(row[term]) for row in rows]
    part = max(1, len(values) // 4)
    return sum(values[-part:]) < sum(values[:part])


def test_a_general_student_is_fine_tuned_for_a_task(
    run: Callable[..., DistillResult], teacher: Path, tmp_path: Path, data: dict[str, Path]
) -> None:
    from transformers import AutoModelForMaskedLM

    recipe = load_recipe("distilbert")
    student = f"{recipe.student},init=random"
    found = run("general", recipe="distilbert", teacher=str(teacher), student=student, epochs=12)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "general")
    assert type(model).__name__ == "DistilBertForMaskedLM"
    assert (model.config.n_layers, model.num_parameters()) == (2, found.parameters)
    rows = log_of(tmp_path / "general", "pretrain")
    assert all(falls(rows, term.match) for stage in recipe.stages for term in stage.terms)
    task = run(
        "task",
        recipe="finetune",
        student=str(tmp_path / "general"),
        train=str(data["train"]),
        eval=str(data["eval"]),
    )
    assert task.metric == "accuracy"
    assert falls(log_of(tmp_path / "task", "train"), "labels")
    architectures = json.loads((tmp_path / "task" / "config.json").read_text())["architectures"]
    assert architectures == ["DistilBertForSequenceClassification"]


def test_the_general_stage_of_tinybert(
    run: Callable[..., DistillResult], teacher: Path, tmp_path: Path
) -> None:
    run(
        "general",
        recipe="tinybert-general",
        teacher=str(teacher),
        student="layers=2,hidden=8,heads=2,init=random",
    )
    rows = log_of(tmp_path / "general", "general")
    for term in ("attention_scores", "hidden_states", "embeddings"):
        assert falls(rows, term), term


def test_a_teacher_with_inverted_bottlenecks_is_trained_and_followed(
    run: Callable[..., DistillResult], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Made of a configuration; its student takes over what lies outside the layers."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    shape = tmp_path / "shape"
    theirs = AutoConfig.for_model(
        "mobilebert", vocab_size=17, max_position_embeddings=32, **INVERTED
    )
    theirs.save_pretrained(shape)
    AutoTokenizer.from_pretrained(make_checkpoint()).save_pretrained(shape)
    run("teacher", recipe="finetune", student=str(shape), task="fill-mask")
    assert falls(log_of(tmp_path / "teacher", "train"), "labels")
    for recipe in ("mobilebert", "mobilebert-joint", "mobilebert-auxiliary"):
        run(recipe, recipe=recipe, teacher=str(tmp_path / "teacher"), student=MOBILE_STUDENT)
        model = AutoModelForMaskedLM.from_pretrained(tmp_path / recipe)
        assert (model.config.true_hidden_size, model.config.normalization_type) == (8, "no_norm")
        for stage in load_recipe(recipe).stages:
            rows = log_of(tmp_path / recipe, stage.name)
            taking_turns = any(getattr(term, "in_turn", None) for term in stage.terms)
            if taking_turns:
                # The first and the last rows are of different layers, and a random teacher's
                # attention is the same everywhere.
                assert falls(rows[: len(rows) // 2], "hidden_states")
                continue
            assert falls(rows, "loss"), (recipe, stage.name)


def test_a_task_without_a_teacher(run: Callable[..., DistillResult], checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="unknown task 'fil-mask': did you mean 'fill-mask'"):
        run("x", recipe="finetune", student=str(checkpoint), task="fil-mask")
    with pytest.raises(ConfigError, match="--task fill-mask: the teacher does text-classification"):
        run("x", recipe="kd", teacher=str(checkpoint), student="layers=2", task="fill-mask")


def test_layers_take_turns() -> None:
    """Each pair counts alone for its share of the steps, and the last one from then on."""
    import torch

    from distill.objectives import Batch, Setting, Shape
    from distill.objectives.layers import HiddenStates
    from distill.recipe.terms import HiddenStatesTerm
    from distill.signals.capture import Signals

    setting = Setting(student=Shape(3, 2), teacher=Shape(6, 2), problem_type=None)
    term = HiddenStatesTerm(match="hidden_states", in_turn=0.6)
    objective = HiddenStates(term, setting)
    states = {layer: torch.full((1, 1, 2), float(layer)) for layer in range(7)}
    zeros = {layer: torch.zeros(1, 1, 2) for layer in range(4)}
    batch = Batch(
        Signals({}, hidden_states=zeros),
        {"teacher": Signals({}, hidden_states=states)},
        None,
        torch.ones(1, 1),
        {"tokens": torch.tensor(1.0)},
    )
    assert float(objective(batch)) == 4.0
    found = []
    for step in range(10):
        objective.advance(step, step / 10)
        found.append(float(objective(batch)))
    # Student layers 1, 2, 3 with the teacher's 2, 4, 6.
    assert found == [4.0] * 2 + [16.0] * 2 + [36.0] * 6


def test_turns_need_a_map_with_an_order() -> None:
    from distill.recipe.config import Stage

    with pytest.raises(ConfigError, match="emd weighs all pairs at once, so in_turn must be left"):
        Stage.build(
            {"terms": [{"match": "hidden_states", "layers": "emd", "in_turn": 0.5}]}, where="x"
        )
