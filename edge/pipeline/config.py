"""A run recipe: one section a command, with the keys that the command's flags have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config import Config, load_yaml
from edge.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from distill import Recipe

RECIPES = Path(__file__).parent.parent / "recipes"


class RunRecipe(Config):
    """What `edge run` does besides its inputs.

    distill, convert, benchmark: keys and values as of those commands; checked by them, before
    any work starts.
    """

    name: str
    summary: str = ""
    distill: dict[str, Any] = {}
    convert: dict[str, Any] = {}
    benchmark: dict[str, Any] = {}


def load_recipe(name: str) -> RunRecipe:
    """The shipped recipe called `name`, or a YAML file.

    A training recipe, which has `stages`, is run with the default of everything else.
    Raises ConfigError when there is no such recipe or it does not hold what it should.
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
    """The file of a recipe of `edge distill` or `edge run`, and what it says.

    Raises ConfigError when there is no such recipe or it does not hold what it should.
    """
    from distill import load_recipe as load_training_recipe

    path = _find(name)
    values = load_yaml(path)
    if "stages" in values:
        return path, load_training_recipe(name)
    return path, RunRecipe.build(values, where=f"recipe {name}")


def shipped_recipes() -> list[str]:
    """Names of the run recipes that come with the package."""
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
