"""Configuration: unknown keys are refused with the nearest known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import Config, load_yaml
from edge.errors import ConfigError, unknown_name
from edge.formats import parse_format
from edge.precision import Precision, parse_precision


class Inner(Config):
    learning_rate: float = 1.0


class Outer(Config):
    name: str
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "a", "name": "b"}, "here: unknown key 'nmae', did you mean 'name'?"),
        (
            {"name": "a", "inner": {"learning_rte": 1}},
            "here: unknown key 'inner.learning_rte', did you mean 'learning_rate'?",
        ),
        ({"name": "a", "qqq": 1}, "here: unknown key 'qqq'"),
        ({}, "here: name: Field required"),
    ],
)
def test_a_problem_is_one_line_that_names_the_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.build(values, where="here")
    assert str(caught.value) == message


def test_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(name="a").name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must hold key: value pairs, found list"),
        ("[" * 3000, "is not valid YAML: too many brackets"),
        ("a: 1\nb:\n- c: 1\n  d: 2\n  c: 3\n", "line 5 has the key 'c' twice: remove one"),
    ],
)
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(file)


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        load_yaml(tmp_path / "none.yaml")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown format 'onxx': did you mean 'onnx'?"):
        parse_format("onxx")
    with pytest.raises(ConfigError, match="unknown precision 'int9': did you mean 'int8'?"):
        parse_precision("int9")
    assert parse_precision("fp16") is Precision.FP16
    assert str(unknown_name("colour", "zzz", ["red"])) == ("unknown colour 'zzz': choose from red")
