"""An artifact's metric is the checkpoint's, for every task, in code and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from edge.bundle import Bundle
from edge.checkpoint import open_checkpoint
from edge.cli.evaluate import _run
from edge.engines import get_engine
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer
from edge.errors import ConfigError, DataError, EngineError
from edge.evaluate import Evaluation, checkpoint_job, evaluate, evaluate_checkpoint, score
from edge.predict import predict
from edge.reference import Reference
from edge.tasks import TASKS

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LENGTH = 32
CONTEXT = "the plot of a film was not good and great " * 6
TEXTS = ["the film was good", "a bad plot of the film", "who is not great", "zebra", "xylo (9)"]
# A row of each task's data, by its number, and the metrics, the main one first.
ROWS: dict[str, tuple[Callable[[int], dict[str, Any]], list[str]]] = {
    "text-classification": (lambda i: {"text": TEXTS[i], "label": i % 2}, ["accuracy"]),
    "token-classification": (
        lambda i: {"tokens": TEXTS[i].split() * 5, "tags": [LABELS[i]] * len(TEXTS[i].split()) * 5},
        ["f1", "precision", "recall", "accuracy"],
    ),
    "question-answering": (
        lambda i: {
            "question": TEXTS[i],
            "context": CONTEXT,
            "answers": {"text": ["not good", "a"]},
        },
        ["f1", "exact_match"],
    ),
    "fill-mask": (lambda i: {"text": TEXTS[i]}, ["masked_accuracy", "log_likelihood"]),
    "feature-extraction": (
        lambda i: {"sentence1": TEXTS[i], "sentence2": TEXTS[-i], "score": i},
        ["spearman", "pearson"],
    ),
}


def write(folder: Path, task: str, rows: int = len(TEXTS)) -> Path:
    path = folder / f"{task}.jsonl"
    row = ROWS[task][0]
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(rows)))
    return path


@pytest.fixture(scope="module")
def built(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """Checkpoint and bundle of a task, made once."""
    from converters import ConvertConfig, convert

    folder = tmp_path_factory.mktemp("tasks")

    def build(task: str) -> tuple[Path, Path]:
        source, bundle = folder / task, folder / f"{task}-bundle"
        if not bundle.is_dir():
            labels = LABELS if task == "token-classification" else ("a", "b")
            tiny_checkpoint(source, "bert", task=task, labels=labels)
            settings = {"source": str(source), "output": bundle, "seq_length": [16, LENGTH]}
            convert(
                ConvertConfig.build(settings | {"format": ["onnx"], "precision": ["fp32", "fp16"]})
            )
        return source, bundle

    return build


@pytest.mark.parametrize("name", TASKS)
def test_fp32_has_the_metric_of_the_checkpoint(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path, name: str
) -> None:
    source, folder = built(name)
    bundle = Bundle.open(folder)
    table = bundle_task(bundle).read(write(tmp_path, name))
    found = evaluate(bundle, table, precisions=["fp32"])[0]
    assert [found.metric, *found.others] == ROWS[name][1]
    assert (found.engine, found.samples) == ("onnxruntime", len(TEXTS))
    metric, value = evaluate_checkpoint(open_checkpoint(source), table, max_length=LENGTH)
    assert metric == found.metric
    assert value == pytest.approx(found.value, abs=1e-4)
    reference = Reference(open_checkpoint(source))
    examples = reference.task.examples(table, reference.tokenizer, max_length=LENGTH)
    every = examples.score(reference.infer(examples.encodings))
    assert every == pytest.approx({found.metric: found.value, **found.others}, abs=1e-4)
    artifact = bundle.select((), ["fp32"])[0]
    with Runner(bundle, artifact, get_engine("onnxruntime")) as runner:
        again = score(runner.task, bundle_tokenizer(bundle), table, runner.infer, max_length=LENGTH)
    assert again == (found.metric, found.value)


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_verify_shows_the_metric_beside_the_golden_vectors(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    _, bundle = built("token-classification")
    data = write(tmp_path, "token-classification")
    found = edge("verify", bundle, "--eval", data, "--max-samples", "3", "--json")
    assert found.returncode == 0, found.stderr
    records = json.loads(found.stdout)["artifacts"]
    assert [record["precision"] for record in records] == ["fp32", "fp16"]
    for record in records:
        assert record["verification"]["status"] == "passed"
        held = record["evaluation"]
        assert (held["metric"], held["samples"]) == ("f1", 3)
        assert (held["format"], held["precision"]) == (record["format"], record["precision"])
    table = edge("verify", bundle, "--eval", data, "--max-samples", "3")
    header, *rows = (line.split("\t") for line in table.stdout.splitlines())
    assert header[-1] == "f1"
    shown = [row[-1] for row in rows]
    assert shown == [f"{record['evaluation']['value']:.4f}" for record in records]
    plain = edge("verify", bundle, "--json")
    assert all("evaluation" not in record for record in json.loads(plain.stdout)["artifacts"])


@pytest.mark.parametrize("command", [("verify", "--eval"), ("evaluate", "--data")])
def test_another_task_s_data_is_a_user_s_mistake(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path, command: tuple[str, str]
) -> None:
    _, bundle = built("token-classification")
    data = write(tmp_path, "question-answering")
    found = edge(command[0], bundle, command[1], data)
    assert (found.returncode, found.stdout) == (2, "")
    line = found.stderr.strip().splitlines()[-1]
    assert "has no column 'tokens or words'" in line
    assert "it has question, context, answers; token-classification needs columns tokens" in line


def test_columns_can_be_named_on_the_command_line(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    _, bundle = built("question-answering")
    data = tmp_path / "a.tsv"
    data.write_text("asked\tpassage\tsaid\nwho is bad\tthe film was bad\tthe film\n")
    names = ("--text-column", "asked", "--pair-column", "passage", "--label-column", "said")
    found = edge("evaluate", bundle, "--data", data, *names, "--precision", "fp32", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["artifacts"][0]["metric"] == "f1"


def test_targets_that_do_not_fit_are_refused_before_anything_runs(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    _, bundle = built("token-classification")
    path = tmp_path / "a.conll"
    path.write_text("Ada B-ORG\n")
    opened = Bundle.open(bundle)
    with pytest.raises(DataError, match="row 1: tag 'B-ORG' is not one of the model's"):
        evaluate(opened, bundle_task(opened).read(path), engine="none of this name")


def test_checkpoints_are_measured_beside_their_artifacts(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    source, bundle = built("token-classification")
    data = write(tmp_path, "token-classification")
    found = edge("evaluate", bundle, source, "--data", data, "--precision", "fp32", "--json")
    assert found.returncode == 0, found.stderr
    values = json.loads(found.stdout)
    (artifact,), (checkpoint,) = values["artifacts"], values["checkpoints"]
    assert (artifact["source"], checkpoint["source"]) == (str(bundle), str(source))
    assert (checkpoint["engine"], checkpoint["format"]) == ("pytorch", "checkpoint")
    for key in ("metric", "samples"):
        assert checkpoint[key] == artifact[key]
    assert checkpoint["value"] == pytest.approx(artifact["value"], abs=1e-4)
    table = edge("evaluate", source, "--data", data).stdout.splitlines()
    assert [line.split("\t")[1] for line in table] == ["format", "checkpoint"]


def test_a_checkpoint_reads_no_more_than_it_can(
    built: Callable[[str], tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = open_checkpoint(built("text-classification")[0])
    path = tmp_path / "long.tsv"
    path.write_text(f"text\tlabel\n{'a film ' * 99}\ta\n")
    found = checkpoint_job(checkpoint, checkpoint.task.read(path), max_length=4000)()
    assert found.samples == 1
    assert "1 cut at 64 tokens; 64 tokens" in capsys.readouterr().err


def test_a_text_that_is_cut_or_no_text_is_told(
    built: Callable[[str], tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.open(built("text-classification")[1])
    assert len(predict(bundle, ["a film " * 99, "a film"], precisions=["fp32"])) == 2
    assert capsys.readouterr().err == f"1 of 2 inputs cut at {LENGTH} tokens\n"
    with pytest.raises(ConfigError, match="text 2 is not UTF-8"):
        predict(bundle, ["a film", "caf\udce9"])


def test_a_model_that_fails_leaves_the_others_figures(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Evaluation:
        raise EngineError("ONNX Runtime failed on b.onnx: out of memory")

    def interrupted() -> Evaluation:
        raise KeyboardInterrupt

    def works() -> Evaluation:
        values = {"format": "onnx", "target": "onnxruntime", "precision": "fp32"}
        return Evaluation.build(
            {**values, "engine": "onnxruntime", "metric": "f1", "value": 0.5, "samples": 2}
        )

    with pytest.raises(typer.Exit) as stopped:
        _run([works, fails, works], "models", as_json=True)
    assert stopped.value.exit_code == 1
    said = capsys.readouterr()
    assert len(json.loads(said.out)["artifacts"]) == 2
    assert json.loads(said.out)["failures"] == ["ONNX Runtime failed on b.onnx: out of memory"]
    assert said.err == "failed: ONNX Runtime failed on b.onnx: out of memory\n"
    with pytest.raises(KeyboardInterrupt):
        _run([works, interrupted, works], "models", as_json=False)
    assert capsys.readouterr().out.count("0.5000") == 1
