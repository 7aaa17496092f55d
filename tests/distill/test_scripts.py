"""The scripts that measure distillation: what they keep, count and compare."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        teacher=tmp_path / "teacher",
        data=tmp_path / "data",
        unlabelled=None,
        work=tmp_path / "work",
        keep=False,
        jobs=1,
        threads=None,
        bf16=True,
        students=["layers=3"],
        recipes=["finetune", "kd"],
        seeds=[0, 1],
    )


def row(recipe: str, seed: int, pooled: float, **more: Any) -> dict[str, Any]:
    scores = {"pooled": pooled, "dev": pooled, "test": pooled}
    return {"student": "layers=3", "recipe": recipe, "seed": seed, **scores, **more}


def test_table_gives_mean_spread_and_distance_to_fine_tuning() -> None:
    quality = script("quality")
    rows = [row("finetune", 0, 0.86), row("finetune", 1, 0.88), row("kd", 0, 0.90)]
    _, plain, kd = quality.report(rows)
    assert plain == "\t".join(
        ("layers=3", "finetune", "2", "87.00", "1.41", "87.00", "87.00", "+0.00")
    )
    assert kd.split("\t") == ["layers=3", "kd", "1", "90.00", "", "90.00", "90.00", "+3.00"]


def test_table_counts_a_cell_once_and_says_what_does_not_fit() -> None:
    quality = script("quality")
    again = [row("kd", 0, 0.5), row("kd", 0, 0.9)]
    unfit = {"student": "layers=1", "recipe": "minilm", "seed": 0, "error": "edge: no heads"}
    _, kd, minilm = quality.report([*again, unfit])
    assert kd.split("\t")[2:4] == ["1", "90.00"]
    assert minilm == "layers=1\tminilm\t1\tedge: no heads"


def test_study_does_what_is_left_and_a_changed_recipe_again(options: argparse.Namespace) -> None:
    quality = script("quality")
    cells = quality.cells(options)
    assert [(cell.recipe, cell.seed) for cell in cells] == [
        ("finetune", 0),
        ("kd", 0),
        ("finetune", 1),
        ("kd", 1),
    ]
    options.work.mkdir()
    done = [{**vars(cells[0]), "pooled": 0.9}, {**vars(cells[1]), "made_of": "another"}]
    lines = "".join(json.dumps(line) + "\n" for line in done)
    (options.work / "cells.jsonl").write_text(lines)
    assert quality.Study(options).remaining(cells) == cells[1:]


def test_study_gives_texts_to_the_recipes_that_want_them(options: argparse.Namespace) -> None:
    quality = script("quality")
    options.recipes, options.seeds = ["xtreme", "kd"], [0]
    with_labels = quality.cells(options)
    options.unlabelled = Path("some/texts.tsv")
    xtreme, kd = quality.cells(options)
    assert (xtreme.unlabelled, kd) == ("texts.tsv", with_labels[1])
    study = quality.Study(options)
    assert study._arguments(xtreme, Path("out")).count("--unlabelled") == 1
    assert "--unlabelled" not in study._arguments(kd, Path("out"))
    assert xtreme.name != with_labels[0].name
    rows = [row("xtreme", 0, 0.5), row("xtreme", 0, 0.6, unlabelled="texts.tsv")]
    assert [line.split("\t")[1] for line in quality.report(rows)][1:] == [
        "xtreme",
        "xtreme + texts.tsv",
    ]


def test_throughput_trains_the_first_stage_on_labelled_rows(tmp_path: Path) -> None:
    from distill.recipe.config import load_recipe

    throughput = script("throughput")
    file = throughput._first_stage(argparse.Namespace(recipes=["tinybert"], work=tmp_path))
    (stage,) = load_recipe(file).stages
    shipped = load_recipe("tinybert").stages[0]
    assert shipped.augment and stage == shipped.model_copy(update={"augment": ()})


def test_throughput_takes_the_same_rows_for_everybody(tmp_path: Path) -> None:
    throughput = script("throughput")
    data = tmp_path / "data.tsv"
    data.write_text("text\tlabel\n" + "".join(f"row {i}\t{i % 2}\n" for i in range(10)))
    options = argparse.Namespace(data=data, work=tmp_path, rows=4)
    lines = throughput._rows(options).read_text().splitlines()
    assert lines == ["text\tlabel", "row 0\t0", "row 2\t0", "row 4\t0", "row 6\t0"]
    assert options.rows == 4


def test_the_sentence_of_an_answer_is_the_relevant_one(tmp_path: Path) -> None:
    embeddings = script("embeddings")
    context = "It rains. The sun\ncame out at 6 p.m. on Monday. Nobody saw it! Was it so? It was."
    asked = [
        {"question": "When?", "answers": [{"answer_start": context.index("6 p.m.")}]},
        {"question": "Who saw it?", "answers": [{"answer_start": context.index("Nobody")}]},
    ]
    short = {"context": "One. Two.", "qas": [{"question": "?", "answers": [{"answer_start": 0}]}]}
    paragraphs = [{"context": context, "qas": asked}, short]
    source = tmp_path / "squad.json"
    source.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    lines = embeddings._ranking(source, tmp_path / "ranking.tsv", 10).read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0] == ["sentence1", "sentence2", "score"] and len(rows) == 1 + 2 * 4
    relevant = {question: sentence for question, sentence, score in rows if score == "1"}
    assert relevant == {
        "When?": "The sun came out at 6 p.m. on Monday.",
        "Who saw it?": "Nobody saw it!",
    }
