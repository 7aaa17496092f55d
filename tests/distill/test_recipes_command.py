from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from distill import load_recipe, recipe_names
from edge.cli.recipes import recipes
from edge.config import load_yaml
from edge.errors import ConfigError

APP = typer.Typer()
APP.command()(recipes)


def edge_recipes(*arguments: str) -> str:
    return CliRunner().invoke(APP, arguments, catch_exceptions=False).stdout


def test_the_list_says_when_to_use_which() -> None:
    header, *lines = edge_recipes().splitlines()
    assert header == "recipe\twhen to use it"
    assert [line.split("\t")[0] for line in lines] == recipe_names()
    assert all(line.split("\t")[1] == load_recipe(line.split("\t")[0]).summary for line in lines)


def test_the_list_for_machines() -> None:
    found: list[dict[str, Any]] = json.loads(edge_recipes("--json"))
    assert [recipe["name"] for recipe in found] == recipe_names()
    assert all(one["needs_teacher"] == load_recipe(one["name"]).needs_teacher for one in found)
    assert all("https://" in recipe["paper"] for recipe in found)


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_shown_can_be_run(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(edge_recipes("show", name))
    assert load_recipe(str(copy)) == load_recipe(name)
    assert load_yaml(copy)["paper"] == load_recipe(name).paper
    assert json.loads(edge_recipes("show", str(copy), "--json"))["name"] == name


@pytest.mark.parametrize("name", ["default", "demo"])
def test_recipes_of_runs_are_shown_too(name: str, tmp_path: Path) -> None:
    from edge.pipeline.config import load_recipe as load_run_recipe

    copy = tmp_path / "copy.yaml"
    copy.write_text(edge_recipes("show", name))
    assert load_run_recipe(str(copy)) == load_run_recipe(name)
    assert json.loads(edge_recipes("show", name, "--json"))["convert"]["format"]


def test_the_list_names_the_recipes_of_runs() -> None:
    found = CliRunner().invoke(APP, [], catch_exceptions=False)
    assert "edge run has recipes of its own besides: default, demo" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "tinybrt"), "unknown recipe 'tinybrt': did you mean 'tinybert'"),
        (("show",), "edge recipes show: use edge recipes, or edge recipes show NAME"),
        (("shwo", "kd"), "edge recipes shwo kd: use edge recipes, or edge recipes show NAME"),
        (("show", "nowhere.yaml"), "nowhere.yaml does not exist"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edge_recipes(*arguments)


def test_every_recipe_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in guide for name in recipe_names())
