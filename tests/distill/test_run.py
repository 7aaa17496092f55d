"""`distill` from files to a checkpoint, through every shipped recipe."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import DistillConfig, DistillResult, distill, is_distilled, load_recipe, recipe_names
from distill.training.evaluation import Judge
from edge.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EdgeError,
    StorageError,
    TrainingError,
    UserError,
)
from tests.distill.conftest import distil_tiny


@pytest.fixture
def run(
    checkpoint: Path,
    data: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., DistillResult]:
    """Distill at tiny size; keywords replace settings."""
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
    output = tmp_path / "student"
    return partial(distil_tiny, checkpoint, data, output, student="layers=2", epochs=1)


# They learn before any task: tests/distill/test_pretraining.py trains them end to end.
PLAIN_TEXT = {
    *("distilbert", "tinybert-general"),
    *("mobilebert", "mobilebert-joint", "mobilebert-auxiliary"),
}
# They want students or texts of their own: test_hybrid.py, test_residual.py, test_transfer.py,
# test_vocabulary.py and test_mixing.py train them.
ANOTHER_STUDENT = {"blockwise", "residual", "xtreme", "extreme-vocab", "extreme-vocab-general"}
# They make embeddings: test_embeddings.py and test_bi_encoder.py train them.
EMBEDDINGS = {"embedding", "bi-encoder"}
# What others than a teacher say changes with the student: test_online.py, test_self.py and
# test_multi_teacher.py train these.
IN_COMPANY = {
    name for name in recipe_names() if any(stage.companions for stage in load_recipe(name).stages)
}
CLASSIFIERS = {*recipe_names()} - PLAIN_TEXT - ANOTHER_STUDENT - EMBEDDINGS - IN_COMPANY


@pytest.mark.parametrize("recipe", sorted(CLASSIFIERS))
def test_every_recipe_makes_a_checkpoint_that_plain_transformers_loads(
    recipe: str,
    run: Callable[..., DistillResult],
    taught: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    augmented = any(stage.augment for stage in load_recipe(recipe).stages)
    result = run(
        recipe=recipe,
        teacher=str(taught),
        # One made of its teacher starts where its states are hardly to be brought nearer.
        student="layers=2,hidden=8,heads=2,init=random",
        epochs=0.5 if augmented else 4,
        learning_rate=5e-3,
    )
    assert capfd.readouterr().out == ""
    folder = tmp_path / "student"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "distillation.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_log.csv",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.num_hidden_layers == 2
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.dtype == torch.float32
    batch = AutoTokenizer.from_pretrained(folder)(["fine film"], return_tensors="pt")
    assert torch.isfinite(model.eval()(**batch).logits).all()
    assert result.parameters == model.num_parameters() < (result.teacher_parameters or 0)
    assert (result.train_samples, result.eval_samples, result.metric) == (48, 24, "accuracy")
    _check_record(folder, result)
    for stage in load_recipe(recipe).stages:
        rows = _check_log(folder, stage.name, {term.match for term in stage.terms})
        if stage.augment:
            # The rows and their copies, without those that came out alike: about half, and texts
            # as short as these have no more than some ten parts.
            plain = 0.5 * 48 / 8
            most = plain * (1 + sum(method.copies for method in stage.augment))
            assert 0.45 * min(most, 10 * plain) < len([r for r in rows if r["loss"]]) <= most
        else:
            assert [int(row["step"]) for row in rows if row["loss"]] == list(range(1, 25))
            assert len([row for row in rows if row["eval_accuracy"]]) == 4


def _check_record(folder: Path, result: DistillResult) -> None:
    record = json.loads((folder / "distillation.json").read_text())
    assert {key: record[key] for key in result.to_dict()} == result.to_dict()
    made_from = record["made_from"]
    assert made_from["recipe"]["name"] == result.recipe
    assert all(re.fullmatch("[0-9a-f]{64}", made_from[key]) for key in ("teacher", "train", "eval"))
    assert set(made_from["versions"]) >= {"torch", "transformers"}
    assert is_distilled(folder)


def _check_log(folder: Path, stage: str, terms: set[str]) -> list[dict[str, str]]:
    """Every term falls; gives the rows of the log."""
    with (folder / "training_log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == stage]
    steps = [row for row in rows if row["loss"]]
    for name in {"loss", *terms}:
        values = [float(row[name]) for row in steps]
        assert sum(values[-6:]) < sum(values[:6]), name
    return rows


def test_students_learn_what_their_teacher_knows(
    run: Callable[..., DistillResult], taught: Path, tmp_path: Path
) -> None:
    result = run(teacher=str(taught), student="layers=1", epochs=4, learning_rate=5e-3)
    assert result.teacher_value is not None and result.teacher_value > 0.9
    assert result.value is not None and result.value > 0.9
    record = json.loads((tmp_path / "student" / "distillation.json").read_text())
    assert record["copied_layers"] == [0]


def test_the_same_seed_gives_the_same_student(
    run: Callable[..., DistillResult], tmp_path: Path
) -> None:
    def weights(name: str, seed: int) -> bytes:
        run(student="layers=2,hidden=8", output=tmp_path / name, seed=seed)
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert weights("a", 1) == weights("b", 1)
    assert weights("c", 2) != weights("b", 1)


def test_a_student_of_another_architecture(
    run: Callable[..., DistillResult], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    run(student=str(make_checkpoint("distilbert", n_layers=2, dim=8)))
    values = json.loads((tmp_path / "student" / "config.json").read_text())
    assert values["architectures"] == ["DistilBertForSequenceClassification"]


def test_without_teacher_and_eval(
    run: Callable[..., DistillResult], checkpoint: Path, tmp_path: Path
) -> None:
    result = run(
        recipe="finetune", teacher=None, student=str(checkpoint / "config.json"), eval=None
    )
    assert (result.metric, result.value, result.teacher_value) == (None, None, None)
    assert result.teacher_parameters is None


def test_bf16_trains_and_saves_float32(run: Callable[..., DistillResult], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(student="layers=2,hidden=8", bf16=True)
    tensors = load_file(tmp_path / "student" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}


@pytest.mark.parametrize("bf16", [True, False])
def test_epochs_are_measured_in_the_precision_of_training_and_the_student_in_float32(
    run: Callable[..., DistillResult], monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    seen = []

    def judged(self: Judge, model: Any) -> tuple[str, float]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return measured(self, model)

    measured = Judge.__call__
    monkeypatch.setattr(Judge, "__call__", judged)
    run(student="layers=2,hidden=8", bf16=bf16, epochs=2)
    assert seen == [False, bf16, bf16, False]  # the teacher, each epoch, the student


def test_regression(
    run: Callable[..., DistillResult], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = make_checkpoint(labels=("score",), problem_type="regression")
    path = tmp_path / "scores.csv"
    path.write_text("sentence1,sentence2,score\n" + "fine film,poor plot,0.5\ngreat,great,5\n" * 8)
    result = run(teacher=str(teacher), train=str(path), eval=str(path))
    assert result.metric == "pearson"


def test_multi_label(
    run: Callable[..., DistillResult], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = make_checkpoint(labels=("a", "b", "c"), problem_type="multi_label_classification")
    path = tmp_path / "sets.jsonl"
    rows = [{"text": "fine film", "label": ["a", "c"]}, {"text": "sad plot", "label": []}] * 8
    path.write_text("\n".join(map(json.dumps, rows)))
    result = run(teacher=str(teacher), train=str(path), eval=str(path))
    assert result.metric == "micro_f1"


def test_several_stages_in_order(run: Callable[..., DistillResult], tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "name: two\nsummary: s\nstages:\n"
        "- name: inside\n  max_steps: 3\n  terms: [{match: hidden_states}]\n"
        "- name: answers\n  max_steps: 2\n  terms: [{match: logits}]\n"
    )
    run(recipe=str(recipe), epochs=None, student="layers=2,hidden=8")
    with (tmp_path / "student" / "training_log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    assert [row["stage"] for row in rows] == ["inside"] * 3 + ["answers"] * 2
    assert [bool(row["hidden_states"]) for row in rows] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("stopped_at", [4, 9])
def test_a_run_continues_where_it_was_stopped(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stopped_at: int,
) -> None:
    """Stopped in the first stage, or in the second: the student is the same."""
    from distill.training.trainer import DistillTrainer

    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "name: two\nsummary: s\nstages:\n"
        "- name: inside\n  terms: [{match: hidden_states}]\n"
        "- name: answers\n  terms: [{match: logits}, {match: hidden_states}]\n"
    )
    settings = {"recipe": str(recipe), "student": "layers=2,hidden=8", "save_seconds": 0}
    run(**settings, output=tmp_path / "whole")
    count, step = 0, DistillTrainer.training_step

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == stopped_at:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "training_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(**settings)
    assert not (tmp_path / "student").exists()
    assert "the same command continues from there" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "training_step", interrupt)
        run(**settings)
    assert count == stopped_at + 1 + 12 - stopped_at
    assert "continuing the run kept in" in capfd.readouterr().err
    whole, continued = tmp_path / "whole", tmp_path / "student"
    weights, log = "model.safetensors", "training_log.csv"
    assert (whole / weights).read_bytes() == (continued / weights).read_bytes()
    assert (whole / log).read_text() == (continued / log).read_text()
    assert not (tmp_path / "student.training").exists()


def test_other_settings_start_over(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from distill.training.trainer import DistillTrainer

    _stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(save_seconds=0)
    assert (tmp_path / "student.training" / "0-train" / "checkpoint-3").is_dir()
    monkeypatch.undo()
    result = run(save_seconds=0, learning_rate=2e-3)
    assert "belongs to a run with other data or settings: starting over" in capfd.readouterr().err
    assert result.value is not None
    assert DistillTrainer.training_step is not None


def test_an_early_stop_leaves_nothing(
    run: Callable[..., DistillResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(tmp_path.iterdir()) == []


def _stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    from distill.training.trainer import DistillTrainer

    step, count = DistillTrainer.training_step, 0

    def stop(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(DistillTrainer, "training_step", stop)


def test_a_failure_keeps_the_former_student(
    run: Callable[..., DistillResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    before = (tmp_path / "student" / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"term '\w+' became (nan|inf) at step"):
        run(learning_rate=1e30)
    assert (tmp_path / "student" / "model.safetensors").read_bytes() == before
    run(seed=5)
    assert (tmp_path / "student" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("full_at", ["checkpoint-1", "0-train"])
def test_a_full_disk_is_said_in_one_line(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_at: str,
) -> None:
    """A training checkpoint that does not fit, or the finished stage."""
    import safetensors.torch

    save = safetensors.torch.save_model

    def fill_up(model: Any, path: str) -> None:
        if Path(path).parent.name == full_at:
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save(model, path)

    monkeypatch.setattr(safetensors.torch, "save_model", fill_up)
    with pytest.raises(StorageError, match=r"no space left while writing .*: free some space"):
        run(save_seconds=0, max_steps=2)
    assert not (tmp_path / "student").exists()


BAD_INPUT: list[tuple[dict[str, Any], type[EdgeError], str]] = [
    ({"train": "nowhere.tsv"}, DataError, "nowhere.tsv does not exist"),
    ({"eval": "nowhere.tsv"}, DataError, "nowhere.tsv does not exist"),
    ({"columns": {"label": "lable"}}, DataError, "no column 'lable': did you mean 'label'"),
    ({"student": "layer=2"}, ConfigError, "unknown student key 'layer'"),
    ({"recipe": "kdd"}, ConfigError, "unknown recipe 'kdd': did you mean 'kd'"),
    ({"teacher": None}, ConfigError, "learns from a teacher: name it with --teacher"),
    ({"teacher": "./nowhere"}, CheckpointError, "checkpoint ./nowhere does not exist"),
    ({"max_length": 33}, ConfigError, "--max-length 33 is more than the 32 tokens"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT)
def test_bad_input_leaves_nothing(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[EdgeError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as found:
        run(**changes)
    assert "\n" not in str(found.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text\tlabel\n", "is empty"),
        ("text\tlabel\nfine\t0\nsad\t2\n", "row 2: label '2' is not one of the checkpoint's 2"),
        ("text\tlabel\nfine\t1\nsad\t1\n", "has one class only, '1' in every row"),
    ],
)
def test_bad_data(
    run: Callable[..., DistillResult], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        run(train=str(path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["student", "student.training"])
def test_a_folder_of_someone_else_is_left_alone(
    run: Callable[..., DistillResult], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="another --output"):
        run()
    assert (tmp_path / name / "thesis.txt").read_text() == "years of work"


def test_a_teacher_of_another_task(
    run: Callable[..., DistillResult], checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "embeds"
    AutoModel.from_pretrained(checkpoint).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="has no head for the labels .* --recipe finetune --"):
        run(teacher=str(folder))


def test_the_command(
    checkpoint: Path, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer
    from typer.testing import CliRunner

    from edge.cli.distill import distill

    app = typer.Typer()
    app.command()(distill)
    arguments = [
        "--teacher", str(checkpoint), "--student", "layers=1", "--train", str(data["train"]),
        "--eval", str(data["eval"]), "--output", str(tmp_path / "student"), "--max-steps", "2",
    ]  # fmt: skip
    found = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    result = json.loads(found.stdout)
    assert result["recipe"] == "kd-hidden"
    assert result["parameters"] < result["teacher_parameters"]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert re.search(r"accuracy 0\.\d+ \(teacher 0\.\d+\) on 24 samples", found.stdout)


def test_real_teacher_and_sentences(sst2: Path, sst2_teacher: Path, tmp_path: Path) -> None:
    """A few steps on real input: labels, lengths and the teacher's accuracy are what they were."""
    head = (sst2 / "dev.tsv").read_text(encoding="utf-8").splitlines()[:65]
    path = tmp_path / "head.tsv"
    path.write_text("\n".join(head) + "\n", encoding="utf-8")
    result = distill(
        DistillConfig(
            teacher=str(sst2_teacher),
            student="layers=2",
            train=str(path),
            eval=str(path),
            output=tmp_path / "student",
            max_steps=2,
            batch_size=8,
        )
    )
    assert result.teacher_value is not None and result.teacher_value > 0.8
    assert result.parameters == 15_616_130
