"""The whole way through the command line at a reduced size, from texts to a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edge.pipeline.demo_data import LABELS, messages, to_tsv

# The teacher itself stands in for BERT-base, whose own files take a minute to make.
SMALL_RECIPE = """
name: small
distill: {recipe: kd-hidden, student: layers=2, max_length: 32, epochs: 3}
convert: {format: [onnx, tflite, coreml], precision: [fp32, int8], seq_length: [32]}
benchmark:
  baseline: TEACHER
  seq_length: 32
  protocol: {min_runs: 16, min_s: 0, max_s: 2, rounds: 8, warmup_runs: 2, warmup_s: 0}
"""
TRAIN_ROWS = 1200


def edge(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge.cli.main", *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "EDGE_CACHE": str(cache)},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """`edge demo` with few texts: its folder, its result, and the arguments."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "small.yaml"
    recipe.write_text(SMALL_RECIPE.replace("TEACHER", str(folder / "out" / "teacher")))
    arguments = [
        *("demo", "--output", str(folder / "out"), "--recipe", str(recipe)),
        *("--train-rows", str(TRAIN_ROWS), "--json"),
    ]
    ran = edge(*arguments, cache=folder / "cache")
    assert ran.returncode == 0, ran.stderr
    return folder, json.loads(ran.stdout), arguments


def test_everything_is_there(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, result, _ = finished
    out = folder / "out"
    for name in ("report.html", "report.md", "rows.jsonl", "run.json", "bundle/edge.json"):
        assert (out / name).stat().st_size > 0
    import transformers

    student = transformers.AutoModelForSequenceClassification.from_pretrained(out / "student")
    assert student.config.num_hidden_layers == 2
    assert tuple(student.config.id2label.values()) == LABELS
    assert not list(out.glob(".*partial*"))
    assert len(result["evaluations"]) == 6
    assert {row["samples"] for row in result["evaluations"]} == {TRAIN_ROWS // 5}
    assert [*result["duration_s"]] == ["teacher", "distill", "convert", "evaluate", "benchmark"]
    assert min(result["duration_s"].values()) > 0


def test_rows_say_how_much_faster(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, result, _ = finished
    lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result["rows"]
    ours = [row for row in result["rows"] if row["role"] == "artifact"]
    assert len(ours) == 6
    for row in ours:
        assert row["accuracy"]["metric"] == "accuracy"
        if row["model"]["format"] == "coreml" and sys.platform != "darwin":
            assert row["latency_ms"] is None
            assert row["validity"]["status"] == "not_measured"
            continue
        assert row["latency_ms"]["n"] == len(row["latency_ms"]["raw_ns"])
        low, high = row["ratio_to_baseline"]["ci95"]
        assert low <= row["ratio_to_baseline"]["value"] <= high
        assert row["ratio_same_engine"]["value"] > 0


def test_a_second_run_keeps_what_is_done(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, result, arguments = finished
    again = edge(*arguments, cache=folder / "cache")
    assert again.returncode == 0, again.stderr
    for part in ("distill", "convert", "evaluate", "benchmark"):
        assert f"{part}: done before, kept" in again.stderr
    assert json.loads(again.stdout)["rows"] == result["rows"]
    assert json.loads(again.stdout)["duration_s"] == {}


def test_recipes_of_runs_and_of_trainings(tmp_path: Path) -> None:
    from distill import recipe_file
    from edge.errors import ConfigError
    from edge.pipeline.config import load_recipe

    default, named = load_recipe("default"), load_recipe("kd-augmented")
    assert named.distill == {"recipe": "kd-augmented"}
    assert (named.convert, named.benchmark) == (default.convert, default.benchmark)
    own = tmp_path / "own.yaml"
    own.write_text(recipe_file("kd").read_text())
    assert load_recipe(str(own)).distill == {"recipe": str(own)}
    with pytest.raises(ConfigError, match="did you mean 'kd-augmented'"):
        load_recipe("kd-augmentd")
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        load_recipe("defualt")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {}),
        (("--bf16", "--seed", "3"), {"bf16": True, "seed": 3}),
        (
            ("--learning-rate", "2e-5", "--max-length", "48"),
            {"learning_rate": 2e-5, "max_length": 48},
        ),
    ],
)
def test_only_flags_that_are_given_replace_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flags: tuple[str, ...],
    expected: dict[str, Any],
) -> None:
    import edge.pipeline.run
    from edge.cli import run as module

    asked: list[Any] = []
    monkeypatch.setattr(edge.pipeline.run, "run", lambda recipe, inputs: asked.append(inputs))
    monkeypatch.setattr(module, "print_run", lambda *args, **kwargs: None)
    app = typer.Typer()
    app.command()(module.run)
    files = ("--teacher", "t", "--train", "a.tsv", "--eval", "b.tsv", "--output", str(tmp_path))
    found = CliRunner().invoke(app, ["default", *files, *flags])
    assert found.exit_code == 0, found.output
    assert asked[0].overrides["distill"] == expected


def test_generated_texts_are_the_same_everywhere() -> None:
    first = messages(500, seed=3)
    assert first == messages(500, seed=3)
    assert first != messages(500, seed=4)
    assert {message.label for message in first} == set(LABELS)
    assert all("{" not in message.text and "\t" not in message.text for message in first)


def test_the_demo_s_vocabulary_covers_its_texts_in_one_order() -> None:
    from edge.pipeline.demo import _vocabulary

    text = to_tsv(messages(500, seed=0))
    found = _vocabulary(text)
    assert len(set(found)) == len(found)
    assert found[:2] == ["[PAD]", "[UNK]"]
    assert "parcel" in found
    assert {character.lower() for character in text if not character.isspace()} <= set(found)
    assert _vocabulary("".join(reversed(text.splitlines(keepends=True)))) == found
