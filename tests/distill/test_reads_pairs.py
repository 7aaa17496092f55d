"""A student says whether it read pairs of texts, and what is made of it refuses anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.checkpoint import glance, open_checkpoint
from edge.errors import DataError
from tests.distill.conftest import write_tsv


@pytest.mark.parametrize("pairs", [False, True])
def test_a_student_says_whether_it_reads_pairs(
    checkpoint: Path, tmp_path: Path, pairs: bool
) -> None:
    from distill.prepare import prepare
    from distill.recipe.config import DistillConfig, load_recipe

    both = write_tsv(
        tmp_path / "pairs.tsv",
        "question sentence label",
        [("long film", "fine plot", "positive"), ("long plot", "sad film", "negative")],
    )
    one = write_tsv(tmp_path / "one.tsv", "text label", [("fine", "positive"), ("sad", "negative")])
    train, other = (both, one) if pairs else (one, both)
    settings = {"teacher": str(checkpoint), "train": str(train), "student": "layers=1"}
    config = DistillConfig.build({**settings, "output": tmp_path / "out"})
    run = prepare(config, load_recipe("kd"))
    saved = tmp_path / "saved"
    run.inputs.student.model.save_pretrained(saved)
    run.inputs.student.tokenizer.save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["reads_pairs"] is pairs
    opened = open_checkpoint(saved)
    seen = glance(saved)
    assert seen is not None
    assert (opened.task.pairs, seen.pairs) == (pairs, pairs)
    assert (opened.task.read(train).pairs is not None) is pairs
    message = "the model reads two" if pairs else "the model reads one text"
    with pytest.raises(DataError, match=message):
        opened.task.read(other)
    with pytest.raises(DataError, match=message):
        opened.task.read(other, targets=False)


@pytest.mark.parametrize("teaches", [False, True])
def test_the_file_of_the_evaluation_has_texts_or_pairs_as_the_one_to_learn_from(
    checkpoint: Path, tmp_path: Path, teaches: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from distill.prepare import prepare
    from distill.recipe.config import DistillConfig, load_recipe

    both = write_tsv(
        tmp_path / "pairs.tsv",
        "question sentence label",
        [("long film", "fine plot", "positive"), ("long plot", "sad film", "negative")],
    )
    one = write_tsv(tmp_path / "one.tsv", "text label", [("fine", "positive"), ("sad", "negative")])
    models = {"teacher": str(checkpoint), "student": "layers=1"}
    if not teaches:
        models = {"student": str(checkpoint)}
    recipe = load_recipe("kd" if teaches else "finetune")

    def build(train: Path, held_out: Path) -> DistillConfig:
        data = {"train": str(train), "eval": str(held_out)}
        return DistillConfig.build({**models, **data, "output": tmp_path / "out"})

    for train, other in ((both, one), (one, both)):
        with pytest.raises(
            DataError, match=r"has .* in each row, and .* (one text|pairs of texts): name"
        ):
            prepare(build(train, other), recipe)
    capsys.readouterr()
    prepare(build(both, both), recipe)
    # Whether a teacher reads pairs is not told by what its student learns from.
    assert ("nothing tells" in capsys.readouterr().err) is teaches
