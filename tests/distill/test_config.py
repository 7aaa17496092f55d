from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, load_recipe, recipe_names
from distill.recipe.config import DEFAULT_RECIPE, Recipe, Stage
from distill.recipe.terms import (
    EmbeddingsTerm,
    FixedLayerMap,
    HiddenStatesTerm,
    LayerMap,
    LogitsTerm,
    Schedule,
    Term,
    at,
    counts,
)
from edge.errors import ConfigError

RULES = {"method": "rules"}


def stage(*terms: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"name": "r", "summary": "s", "stages": [{"terms": list(terms), **values}]}


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_cite(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    assert recipe.paper and "https://" in recipe.paper


def test_the_default_recipe_ships() -> None:
    assert DEFAULT_RECIPE in recipe_names()
    assert {term.match for term in load_recipe(DEFAULT_RECIPE).stages[0].terms} == {
        "logits",
        "labels",
        "hidden_states",
    }


def test_only_recipes_with_signals_need_a_teacher() -> None:
    alone = {name for name in recipe_names() if not load_recipe(name).needs_teacher}
    online = {"afd", "codistill", "dml", "feature-fusion", "kdcl", "okddip", "one"}
    alike = {"byot", "class-wise", "sla", "snapshot", "teacher-free"}
    assert alone == {"finetune", *online, *alike}


def test_every_name_in_the_language_has_its_mechanism() -> None:
    from distill import objectives
    from distill.losses import distributions, layer_map

    def choices(annotation: Any) -> set[str]:
        return set(typing.get_args(annotation))

    union = typing.get_args(typing.get_args(Term)[0])
    matches = {next(iter(choices(term.model_fields["match"].annotation))) for term in union}
    assert matches == set(objectives.OBJECTIVES)
    for term in (HiddenStatesTerm, EmbeddingsTerm):
        assert choices(term.model_fields["loss"].annotation) == set(distributions.STATE_LOSSES)
    assert choices(typing.get_args(LayerMap)[0]) == {*layer_map._RULES, layer_map.DYNAMIC}
    assert choices(typing.get_args(FixedLayerMap)[0]) == set(layer_map._RULES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (stage({"match": "logits", "temprature": 2}), "did you mean 'temperature'"),
        (stage({"match": "labels"}, learning_rat=1), "did you mean 'learning_rate'"),
        (stage({"match": "logits", "temperature": 0}), "temperature: .*greater than 0"),
        (stage({"match": "logits", "temperature": -1}), "temperature: .*greater than 0"),
        (stage({"match": "logits", "loss": "mse", "temperature": 2}), "temperature must stay 1"),
        (stage({"match": "labels", "weight": 0}), "no term with a weight above 0"),
        (stage({"match": "labels", "weight": -1}), "weight: .*greater than or equal to 0"),
        (stage({"match": "labels", "weight": float("inf")}), "should be finite"),
        (stage({"match": "labels", "weight": "much"}), "weight.number: .*valid number"),
        (stage({"match": "labels", "weight": {"start": 0, "end": 0}}), "no term with a weight"),
        (stage({"match": "labels", "weight": {"start": 1, "end": 0, "shap": 1}}), "mean 'shape'"),
        (stage({"match": "labels", "weight": {"start": 1, "end": -1}}), "equal to 0, found -1"),
        (stage({"match": "logits", "temperature": {"start": 0, "end": 1}}), "temperature: .*0"),
        (stage({"match": "labels", "weight": {"start": 1, "end": 0, "until": 2}}), "until"),
        (stage({"match": "labels", "weight": {"start": 1, "end": 0, "shape": "x"}}), "'cosine'"),
        (
            stage({"match": "logits", "loss": "mse", "temperature": {"start": 4, "end": 1}}),
            "temperature must stay 1",
        ),
        (stage({"match": "hidden_states", "remap_steps": 5}), "belongs to layers: emd"),
        (stage({"match": "flow", "layers": "emd"}), "'uniform', 'skip' or 'last'"),
        (stage({"match": "relations"}), "of: Field required"),
        (stage({"match": "relations", "of": "values"}), "'query', 'key', 'value' or 'query-key'"),
        (stage({"match": "relations", "of": "value", "heads": 0}), "greater than 0"),
        (stage({"match": "attention_probs", "loss": "mse"}), "Input should be 'kl'"),
        (
            stage({"match": "attention_scores", "teacher": "peers"}),
            "speaks of 'peers', and only student, ",
        ),
        (stage({"match": "margin", "candidates": 1}), "greater than or equal to 2"),
        (stage({"match": "margin", "candidates": 5}), "use a multiple of 5"),
        (stage({"match": "logit"}), "'logits'"),
        (stage({"match": "labels"}, augment=[RULES]), "no term that follows a teacher: new texts"),
        (stage({"match": "logits"}, augment=[{**RULES, "mask": 2}]), "mask: .*equal to 1"),
        (stage({"match": "logits"}, augment=[{"method": "rule"}]), "'nearest-embedding'"),
        (stage({"match": "hidden_states", "loss": "kl"}), "'layer_normed_mse' or"),
        (stage({"match": "hidden_states", "layers": []}), "layers"),
        (stage(), "terms"),
    ],
)
def test_impossible_recipes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.build(values, where="recipe")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [4.0, 3.0, 2.0, 2.0]),
        ("cosine", [4.0, 3.0, 2.0, 2.0]),
        ("step", [4.0, 4.0, 2.0, 2.0]),
    ],
)
def test_schedules(shape: Any, expected: list[float]) -> None:
    schedule = Schedule(start=4, end=2, shape=shape, until=0.5)
    assert [at(schedule, p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(expected)
    assert at(3.0, 0.7) == 3.0


def test_a_cosine_schedule_starts_and_ends_slowly() -> None:
    schedule = Schedule(start=0, end=1, shape="cosine")
    assert at(schedule, 0.1) == pytest.approx(0.0245, abs=1e-3)
    assert at(schedule, 0.9) == pytest.approx(0.9755, abs=1e-3)


def test_a_weight_that_is_0_at_one_end_counts() -> None:
    for ends, expected in (((0, 1), True), ((1, 0), True), ((0, 0), False)):
        weight = {"start": ends[0], "end": ends[1]}
        term = LogitsTerm.model_validate({"match": "logits", "weight": weight})
        assert counts(term) is expected


def test_stages_need_names_of_their_own() -> None:
    values = stage({"match": "labels"})
    values["stages"] *= 2
    with pytest.raises(ConfigError, match="stages need different names, found train, train"):
        Recipe.build(values)


def test_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'kd-hiden': did you mean 'kd-hidden'"):
        load_recipe("kd-hiden")


def test_a_recipe_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsummary: s\nstages:\n- terms:\n  - match: labels\n")
    assert load_recipe(str(path)).stages == (
        Stage.model_validate({"terms": [{"match": "labels"}]}),
    )
    path.write_text("name: mine\nstages: []\n")
    with pytest.raises(ConfigError, match=r"recipe .*mine\.yaml: "):
        load_recipe(str(path))


def test_unknown_setting_of_a_run() -> None:
    with pytest.raises(ConfigError, match="did you mean 'student'"):
        DistillConfig.build({"train": "a", "output": "b", "studnet": "layers=3"})


def test_public_names_are_sorted() -> None:
    import distill

    assert distill.__all__ == sorted(distill.__all__)
    assert all(hasattr(distill, name) for name in distill.__all__)
