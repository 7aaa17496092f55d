"""Run recipes: one section per command, with the keys of the command's flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config import Config, load_yaml
from edge.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from distill import Recipe

RECIPES = Path(__file__).parent.parent / "recipes"


class RunRecipe(Config):
    """The settings of `edge run`, without its inputs.

    distill, convert, benchmark: keys and values of these commands, which validate them before any
    work starts.
    """

    name: str
    summary: str = ""
    distill: dict[str, Any] = {}
    convert: dict[str, Any] = {}
    benchmark: dict[str, Any] = {}


def load_recipe(name: str) -> RunRecipe:
    """Load the shipped recipe called `name`, or a YAML file.

    A training recipe, which has `stages`, is combined with the default settings of the other
    commands. Raises ConfigError when the recipe does not exist or is invalid.
    """
    path = _find(name)
    values = load_yaml(path)
    if "stages" in values:
        default = load_recipe("default")
        distill = {**default.distill, "recipe": name}
        distill.pop("student", None)
        return default.model_copy(update={"name": path.stem, "distill": distill})
    return RunRecipe.build(values, where=str(path))


def open_recipe(name: str) -> tuple[Path, Recipe | RunRecipe]:
    """Return file and content of a recipe of `edge distill` or `edge run`.

    Raises ConfigError when the recipe does not exist or is invalid.
    """
    from distill import load_recipe as load_training_recipe

    path = _find(name)
    values = load_yaml(path)
    if "stages" in values:
        return path, load_training_recipe(name)
    return path, RunRecipe.build(values, where=f"recipe {name}")


def shipped_recipes() -> list[str]:
    """Return the names of the run recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _find(name: str) -> Path:
    from distill import recipe_file, recipe_names

    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"recipe {name} does not exist: check the path")
        return path
    if name in recipe_names():
        return recipe_file(name)
    if name not in shipped_recipes():
        raise unknown_name("recipe", name, [*shipped_recipes(), *recipe_names()])
    return RECIPES / f"{name}.yaml"
