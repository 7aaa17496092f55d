"""Texts without labels that a run brings to stages which leave open where theirs come from."""

from __future__ import annotations

from distill.recipe.augmentations import Augmentation, Unlabelled
from distill.recipe.config import Recipe, Stage
from edge.console import say
from edge.errors import ConfigError


def takes_texts(recipe: Recipe) -> bool:
    """Whether some stage leaves open where its texts without labels come from."""
    return bool(_open_stages(recipe))


def with_texts(recipe: Recipe, source: str | None) -> Recipe:
    """The recipe with `source` for every `method: unlabelled` that names none.

    Without a source such stages learn from the rows of the data file alone.
    Raises ConfigError for a source that no stage has a place for.
    """
    open_stages = _open_stages(recipe)
    if source is not None and not open_stages:
        raise ConfigError(
            f"recipe '{recipe.name}' has no place for texts without labels: leave out "
            "--unlabelled, or add {method: unlabelled} to the augment of a stage"
        )
    return recipe.with_stages(lambda stage: stage.model_copy(update=_filled(stage, source)))


def tell_texts(recipe: Recipe, source: str | None) -> None:
    """Say which stages of a recipe lack texts without labels."""
    open_stages = _open_stages(recipe)
    if source is None and open_stages:
        say(
            f"recipe {recipe.name} gains from texts without labels: without --unlabelled, "
            f"{' and '.join(open_stages)} see the labelled ones alone"
        )


def _open_stages(recipe: Recipe) -> list[str]:
    return [stage.name for stage in recipe.all_stages if any(map(_is_open, stage.augment))]


def _filled(stage: Stage, source: str | None) -> dict[str, tuple[Augmentation, ...]]:
    methods = tuple(
        method.model_copy(update={"source": source}) if _is_open(method) else method
        for method in stage.augment
    )
    return {"augment": tuple(method for method in methods if not _is_open(method))}


def _is_open(method: Augmentation) -> bool:
    return isinstance(method, Unlabelled) and method.source is None
