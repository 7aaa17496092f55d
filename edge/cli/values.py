"""Values that no option takes: empty names and paths, and numbers that are not finite."""

from __future__ import annotations

import copy
import inspect
import math
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer

# Texts of a person, which may be empty; every other text names something.
_FREE_TEXTS = {"text", "text_pair", "title"}


def checked(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter of a command that refuses such values.

    An empty one is what a shell makes of a variable that is not set: as a path it would be the
    folder one is in, as a filter everything.
    """
    kind, option = get_args(parameter.annotation)
    parts = {*get_args(kind), *(inner for part in get_args(kind) for inner in get_args(part))}
    kinds = {kind, *parts} - {NoneType}
    option = copy.copy(option)
    if Path in kinds:
        option.parser = path
    elif float in kinds:
        option.callback = _finite
    elif str in kinds and parameter.name not in _FREE_TEXTS:
        option.callback = _named
    else:
        return parameter
    return parameter.replace(annotation=Annotated[kind, option])


def path(text: str | Path) -> Path:
    """Read a path; the name of this function is what the help shows."""
    if not str(text):
        raise typer.BadParameter("the path is empty: name a file or folder, . for this one")
    return Path(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value:g} is not finite: give a number")
    return value


def _named(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value or ()
    if not all(text.strip() for text in texts):
        raise typer.BadParameter("it is empty: give a value, or leave the option out")
    return value
