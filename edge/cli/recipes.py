"""`edge recipes`: which ways to train a student and which whole runs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.options import AsJson, print_json, print_table
from edge.console import show

if TYPE_CHECKING:
    from distill import Recipe


def recipes(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[show NAME]", help="Print one recipe: a name, or a YAML file."),
    ] = None,
    json: AsJson = False,
) -> None:
    """List the recipes of edge distill and when to use which, or show one of it or of edge run."""
    from edge.errors import ConfigError

    if not words:
        _list(json)
    elif words[0] == "show" and len(words) == 2:
        _show(words[1], json)
    else:
        raise ConfigError(
            f"edge recipes {' '.join(words)}: use edge recipes, or edge recipes show NAME"
        )


def _list(json: bool) -> None:
    from distill import load_recipe, recipe_names
    from edge.console import say
    from edge.pipeline.config import shipped_recipes

    found = [load_recipe(name) for name in recipe_names()]
    if json:
        print_json([_line(recipe) for recipe in found])
    else:
        rows = [(recipe.name, recipe.summary) for recipe in found]
        print_table("", ("recipe", "when to use it"), rows)
        say(f"edge run has recipes of its own besides: {', '.join(shipped_recipes())}")


def _line(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json", include={"name", "summary", "paper", "student"})
    return {**values, "needs_teacher": recipe.needs_teacher}


def _show(name: str, json: bool) -> None:
    from edge.pipeline.config import open_recipe

    file, recipe = open_recipe(name)
    if json:
        print_json(recipe.model_dump(mode="json"))
    else:
        for line in file.read_text(encoding="utf-8").splitlines():
            show(line)
