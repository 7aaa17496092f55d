"""The base of every configuration: plain data, checked when it is built, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.errors import ConfigError, nearest

T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """A frozen record that refuses unknown keys and says which known key was likely meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def build(cls: type[T], values: Mapping[str, Any], *, where: str = "configuration") -> T:
        """Validate `values`; raises ConfigError, one line, naming `where` and the key at fault."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_problem(error, _keys(cls))}") from None

    @classmethod
    def build_json(cls: type[T], text: str, *, where: str) -> T:
        """Validate a JSON text like `build`; its values must have the exact types of the fields."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_problem(error, _keys(cls))}") from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ConfigError when it is missing, not YAML, or not a mapping.

    A duplicate key is refused: YAML keeps the last value without a warning.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        duplicate = _duplicate_key(yaml.compose(text, Loader=yaml.SafeLoader), set())
        if duplicate is not None:
            key, line = duplicate
            raise ConfigError(f"{path} line {line} has the key '{key}' twice: remove one")
        value = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {detail}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: too many brackets within brackets") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold key: value pairs, found {type(value).__name__}")
    return value


def _duplicate_key(node: Any, seen: set[int]) -> tuple[str, int] | None:
    """Return the first duplicate key of a mapping in a YAML tree, and its line, or None."""
    if node is None or id(node) in seen or isinstance(node.value, str):
        return None
    seen.add(id(node))
    children = list(node.value)
    if node.id == "mapping":
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                return name, key.start_mark.line + 1
            names.add(name)
        children = [child for pair in node.value for child in pair]
    duplicates = (_duplicate_key(child, seen) for child in children)
    return next((duplicate for duplicate in duplicates if duplicate is not None), None)


def _first_problem(error: ValidationError, known: set[str]) -> str:
    """Return the first validation problem as one sentence."""
    problem = error.errors()[0]
    # Indices and union tags matter to pydantic, the dotted path is what a user finds in a file.
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        guess = nearest(key, known - {key})
        return f"unknown key '{place}'" + (f", did you mean '{guess}'?" if guess else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _keys(model: type[BaseModel]) -> set[str]:
    """Return every field name of a model and of the models nested in it."""
    names: set[str] = set()
    seen: set[type[BaseModel]] = set()

    def walk(current: type[BaseModel]) -> None:
        if current in seen:
            return
        seen.add(current)
        for name, field in current.model_fields.items():
            names.add(field.alias or name)
            for nested in _models_in(field.annotation):
                walk(nested)

    walk(model)
    return names


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
