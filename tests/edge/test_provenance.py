from __future__ import annotations

import ast
import functools
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from edge.config import Config, _models_in
from edge.errors import CheckpointError, ConfigError, DataError
from edge.provenance import (
    AS_IS,
    LIBRARIES,
    NO_EFFECT,
    Counts,
    InputPath,
    OutputPath,
    Word,
    describe,
    differences,
    plain,
    rules_of,
    versions,
)

ROOT = Path(__file__).resolve().parent.parent.parent
_CODE = {"edge", "distill", "converters", "benchmark"}
# They read, draw, serve and print; what they make says nothing about a model.
_OF_NO_EFFECT = {
    *("pydantic", "typing_extensions", "rich", "typer", "jinja2", "segno", "psutil", "yaml"),
    *("safetensors", "huggingface_hub", "packaging", "deepspeed", "mediapipe", "tflite_runtime"),
    # Of packs, which no run makes.
    *("onnxruntime_extensions",),
}


def _roots() -> list[type[BaseModel]]:
    from benchmark.config import BenchmarkConfig
    from converters.config import ConvertConfig
    from distill.recipe.config import DistillConfig, Recipe
    from distill.recipe.student import StudentSpec
    from edge.pipeline.run import _BenchmarkInputs, _EvaluationInputs

    named = (DistillConfig, Recipe, StudentSpec, ConvertConfig, BenchmarkConfig)
    return [*named, _BenchmarkInputs, _EvaluationInputs]


def _models() -> list[type[BaseModel]]:
    """Every configuration that a fingerprint may walk through."""
    found: dict[type[BaseModel], None] = {}

    def walk(model: type[BaseModel]) -> None:
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                for nested in _models_in(field.annotation):
                    walk(nested)

    for root in _roots():
        walk(root)
    return list(found)


def test_every_field_says_how_it_counts() -> None:
    models = _models()
    assert len(models) > 40
    for model in models:
        assert set(rules_of(model)) == set(model.model_fields)


class _Untold(Config):
    file: str


class _UntoldPath(Config):
    files: tuple[Path, ...] | None = None


class _Untyped(Config):
    values: dict[str, Any] = {}


class _Twofold(Config):
    source: Word | InputPath


@pytest.mark.parametrize("model", [_Untold, _UntoldPath, _Untyped, _Twofold])
def test_a_field_that_does_not_say_is_refused(model: type[Config]) -> None:
    values = {"file": "a", "source": "a"}
    config = model(**{name: values[name] for name in model.model_fields if name in values})
    with pytest.raises(TypeError, match="how it counts"):
        describe(config)


def test_an_unknown_kind_of_value_is_refused() -> None:
    class Odd(Config):
        value: Annotated[int, Counts(lambda value: {value})]
        word: Annotated[str, Counts(lambda value: {value})] = ""

    assert describe(Odd(value=1, word="x").model_copy(update={"word": None}))["value"] == 1
    with pytest.raises(TypeError, match="Odd.word: set cannot be part of a fingerprint"):
        describe(Odd(value=1, word="x"))


def test_numbers_words_and_outputs(tmp_path: Path) -> None:
    class Part(Config):
        share: float = 0.5

    class Work(Config):
        name: Word
        count: int = 3
        output: OutputPath
        quiet: Annotated[bool, NO_EFFECT] = False
        parts: tuple[Part, ...] = (Part(),)
        data: InputPath | None = None

    first = Work(name="a", output=tmp_path / "x")
    assert describe(first) == {"name": "a", "count": 3, "parts": [{"share": 0.5}], "data": None}
    assert describe(first) == describe(Work(name="a", output=tmp_path / "y", quiet=True))
    for changes in ({"name": "b"}, {"count": 4}, {"parts": (Part(share=0.4),)}):
        assert differences(describe(first), describe(first.model_copy(update=changes))) == [
            *changes
        ]
    with pytest.raises(ConfigError, match=r"missing cannot be read .*: check the path"):
        describe(Work(name="a", output=tmp_path, data=tmp_path / "missing"))


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text\tlabel\nfilm\t1\n")
    return path


def _file(folder: Path) -> tuple[str, Path]:
    file = _write(folder / "file.tsv")
    return str(file), file


def _folder(folder: Path) -> tuple[str, Path]:
    return str(folder), _write(folder / "deep" / "file.bin")


def _checkpoint(folder: Path) -> tuple[str, Path]:
    (folder / "config.json").write_text("{}")
    return str(folder), _write(folder / "model.safetensors")


def _recipe(folder: Path) -> tuple[str, Path]:
    file = folder / "own.yaml"
    file.write_text("name: own\nsummary: s\nstages: [{terms: [{match: labels}]}]\n")
    return str(file), file


def _rows(folder: Path) -> tuple[str, Path]:
    return str(folder), _write(folder / "rows.jsonl")


def _change(file: Path) -> None:
    text = file.read_text()
    changed = text.replace("stages: [{", "stages: [{learning_rate: 0.05, ")
    file.write_text(changed if changed != text else text + "more\t0\n")


Make = Callable[[Path], tuple[str, Path]]
# Each field that counts by what it names: what a user gives, and a file whose edit must show.
CASES: dict[str, Make] = {
    "DistillConfig.teacher": _checkpoint,
    "DistillConfig.student": _checkpoint,
    "DistillConfig.assistants": _checkpoint,
    "DistillConfig.train": _file,
    "DistillConfig.eval": _file,
    "DistillConfig.unlabelled": _file,
    "DistillConfig.recipe": _recipe,
    "Recipe.student": _checkpoint,
    "Assistant.student": _checkpoint,
    "Peers.student": _checkpoint,
    "Branches.student": _checkpoint,
    "StudentSpec.source": _checkpoint,
    "MaskedLM.model": _checkpoint,
    "MaskedLM.vectors": _file,
    "NearestEmbedding.model": _checkpoint,
    "NearestEmbedding.vectors": _file,
    "Rules.lexicon": _file,
    "Unlabelled.source": _file,
    "ConvertConfig.source": _checkpoint,
    "ConvertConfig.samples": _file,
    "ConvertConfig.calibration": _file,
    "BenchmarkConfig.bundles": _folder,
    "BenchmarkConfig.checkpoints": _checkpoint,
    "BenchmarkConfig.data": _file,
    "BenchmarkConfig.eval": _file,
    "Baseline.checkpoint": _checkpoint,
    "Baseline.bundle": _folder,
    "Baseline.rows": _file,
    "DeviceOptions.tools": _folder,
    "DeviceOptions.sysroot": _folder,
    "_BenchmarkInputs.baseline": _rows,
    "_EvaluationInputs.bundle": _folder,
    "_EvaluationInputs.data": _file,
}
# A folder that may be there or not; where it is does not matter.
_PRESENT = {"DistillConfig.teacher_cache"}


def _fields() -> Iterator[tuple[str, type[BaseModel], str]]:
    for model in _models():
        for name, rule in rules_of(model).items():
            key = f"{model.__name__}.{name}"
            if isinstance(rule, Counts) and rule is not AS_IS and key not in _PRESENT:
                yield key, model, name


def test_every_input_has_a_case() -> None:
    assert {key for key, *_ in _fields()} == set(CASES)


@pytest.mark.parametrize("key", CASES)
def test_an_edited_input_shows(key: str, tmp_path: Path) -> None:
    model, field = next((model, name) for found, model, name in _fields() if found == key)
    value, file = CASES[key](tmp_path)
    several = any(end in key for end in ("assistants", "bundles", "checkpoints"))
    config = model.model_construct(**{field: (value,) if several else value})
    others = {name: None for name in model.model_fields if not hasattr(config, name)}
    config = config.model_copy(update=others)
    before = describe(config)
    assert describe(config) == plain(before)
    _change(file)
    assert differences(before, describe(config)) == [field]


def test_a_recipe_counts_by_what_it_says(tmp_path: Path) -> None:
    from distill import DistillConfig

    source, file = _recipe(tmp_path)
    config = DistillConfig(train=_file(tmp_path)[0], output=tmp_path / "out", recipe=source)
    before = describe(config)
    file.write_text("# A remark.\n" + file.read_text().replace("summary: s", "summary: other"))
    assert describe(config) == before


def test_files_of_augmentation_inside_a_recipe_count(tmp_path: Path) -> None:
    from distill import DistillConfig

    lexicon, file = tmp_path / "words.tsv", tmp_path / "own.yaml"
    lexicon.write_text("film\tnoun\n")
    file.write_text(
        "name: own\nsummary: s\nstages: [{terms: [{match: logits}], "
        f"augment: [{{method: rules, lexicon: {lexicon}}}]}}]\n"
    )
    config = DistillConfig(train=_file(tmp_path)[0], output=tmp_path / "out", recipe=str(file))
    before = describe(config)
    lexicon.write_text("film\tverb\n")
    assert differences(before, describe(config)) == ["recipe"]


def test_how_a_data_file_is_read_is_part_of_it(tmp_path: Path) -> None:
    from edge.sources import data_content

    file = _write(tmp_path / "a.tsv")
    other = _write(tmp_path / "a.csv")
    assert data_content(str(file)) != data_content(str(other))
    assert data_content(str(file)) == data_content(str(_write(tmp_path / "moved" / "b.tsv")))
    with pytest.raises(DataError, match="does not exist: check the path"):
        data_content(str(tmp_path / "missing.tsv"))


def test_a_data_set_folder_counts_by_its_files(tmp_path: Path) -> None:
    import datasets

    from edge.sources import data_content

    def save(label: int) -> Any:
        datasets.Dataset.from_dict({"text": ["film"], "label": [label]}).save_to_disk(
            tmp_path / "set"
        )
        return data_content(f"{tmp_path / 'set'}:train"), data_content(str(tmp_path / "set"))

    first = save(0)
    assert first[0] != first[1]
    assert save(1)[1] != first[1]


def test_a_data_set_by_name_counts_by_the_files_it_is_kept_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up offline, where an earlier download left it."""
    import datasets

    from edge.sources import data_content

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    file = _write(tmp_path / "a.csv")

    def keep(text: str) -> Any:
        file.write_text(text)
        shutil.rmtree(tmp_path / "owner___name", ignore_errors=True)
        datasets.load_dataset("csv", data_files=str(file), cache_dir=str(tmp_path / "made"))
        (made,) = (tmp_path / "made" / "csv").glob("*/*/*/dataset_info.json")
        home = tmp_path / "owner___name" / "default" / "0.0.0" / ("0" * 40)
        shutil.copytree(made.parent, home)
        (home / "csv-train.arrow").rename(home / "name-train.arrow")
        shutil.rmtree(tmp_path / "made")
        return data_content("owner/name")

    first = keep("text,label\nfilm,1\n")
    assert keep("text,label\nfilm,1\n") == first
    assert keep("text,label\nfilm,0\n") != first


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("config.json", True),
        ("tokenizer_config.json", True),
        ("model.safetensors", True),
        ("modules.json", True),
        ("1_Pooling/config.json", True),
        ("0_Transformer/vocab.txt", True),
        (".DS_Store", False),
        ("checkpoint-500/optimizer.pt", False),
    ],
)
def test_the_files_of_a_checkpoint(tmp_path: Path, name: str, counts: bool) -> None:
    from edge.sources import checkpoint_content

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text('[{"path": "0_Transformer"}, {"path": "1_Pooling"}]')
    before = checkpoint_content(tmp_path)
    _write(tmp_path / name)
    assert (checkpoint_content(tmp_path) != before) == counts


def test_a_configuration_alone_counts_with_its_tokenizer(tmp_path: Path) -> None:
    from edge.sources import checkpoint_content

    config = tmp_path / "config.json"
    config.write_text("{}")
    before = checkpoint_content(config)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    assert checkpoint_content(config) != before
    with pytest.raises(CheckpointError, match="does not exist: check the path"):
        checkpoint_content("./missing")


def test_versions_are_named_one_by_one() -> None:
    now = {"recipe": 1, "versions": versions("distill")}
    before = {**now, "versions": {**versions("distill"), "torch": "1.0", "edge-encoders": "0"}}
    assert differences(before, now) == ["version of edge-encoders", "version of torch"]
    assert differences({**before, "recipe": 2}, now)[0] == "recipe"


@pytest.mark.parametrize("package", LIBRARIES)
def test_libraries_that_are_imported_count(package: str) -> None:
    """An import that is neither a library of the package nor known to decide nothing fails here."""
    names = importlib.metadata.packages_distributions()
    missing = set()
    for file in [*(ROOT / package).rglob("*.py"), *(ROOT / "edge").rglob("*.py")]:
        if package == "distill" and {"engines", "inspection"} & {*file.parts}:
            continue  # nothing is run in an engine while a student is trained
        for name in _imported(file):
            if name in _CODE | _OF_NO_EFFECT | sys.stdlib_module_names:
                continue
            found = {one.lower().replace("_", "-") for one in names.get(name, [name])}
            if not found & set(LIBRARIES[package]):
                missing.add((name, file.relative_to(ROOT).as_posix()))
    assert not missing


@functools.cache
def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found
