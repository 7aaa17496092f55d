"""Distillation: one trainer, recipes as data."""

from distill.recipe.config import DistillConfig, Recipe, load_recipe, recipe_file, recipe_names
from distill.result import DistillResult
from distill.run import check, distill, is_distilled

__all__ = [
    "DistillConfig",
    "DistillResult",
    "Recipe",
    "check",
    "distill",
    "is_distilled",
    "load_recipe",
    "recipe_file",
    "recipe_names",
]
