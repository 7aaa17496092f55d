"""Conversion: parity of every format on two architectures and five tasks, and clean refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from converters import ConvertConfig, convert
from edge.bundle import Bundle
from edge.errors import CheckpointError, ConfigError, ConversionError, UserError, VerificationError

TASKS = ("token-classification", "question-answering", "fill-mask", "feature-extraction")


def test_distilbert_passes_in_every_format(distilbert_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    manifest = convert(
        ConvertConfig(source=str(distilbert_checkpoint), output=output, seq_length=(16, 32))
    )
    assert {a.format for a in manifest.artifacts} == {"onnx", "tflite", "coreml"}
    for artifact in manifest.artifacts:
        assert [spec.name for spec in artifact.inputs] == ["input_ids", "attention_mask"]
        assert artifact.runtimes
        assert artifact.verification is not None
        assert artifact.verification.label_agreement is not None
        assert artifact.verification.label_agreement >= 0.9
    assert Bundle.open(output).manifest == manifest


@pytest.mark.parametrize("task", TASKS)
def test_every_task_passes_in_every_format(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, task: str
) -> None:
    # A question-answering head has as many labels as it has outputs: start and end.
    source = tiny_checkpoint(tmp_path / "checkpoint", "bert", task=task, labels=("a", "b"))
    manifest = convert(
        ConvertConfig.build(
            {
                "source": str(source),
                "output": tmp_path / "bundle",
                "precision": ["fp32"],
                "seq_length": [16],
                "task": task,
            }
        )
    )
    assert manifest.task == task
    errors = [a.verification.max_relative_error for a in manifest.artifacts if a.verification]
    assert len(errors) == 3
    assert all(error is not None and error < 1e-4 for error in errors)


@pytest.mark.parametrize(
    ("asked", "maximum", "expected"),
    [
        (None, 512, (32, 64, 128)),
        (None, 64, (32, 64)),
        (None, 40, (32, 40)),
        (None, 20, (20,)),
        ((128, 16, 16), 128, (16, 128)),
    ],
)
def test_lengths_fit_the_model(
    asked: tuple[int, ...] | None, maximum: int, expected: tuple[int, ...]
) -> None:
    config = ConvertConfig(source="x", output=Path("y"), seq_length=asked)
    assert config.lengths(maximum) == expected


def test_narrower_files_are_smaller(bert_bundle: Path) -> None:
    sizes = {a.name: a.bytes for a in Bundle.open(bert_bundle).manifest.artifacts}
    for name in ("onnx", "coreml"):
        assert sizes[f"{name}-int8"] < sizes[f"{name}-fp16"] < sizes[f"{name}-fp32"]


def test_samples_join_the_golden_vectors(bert_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("text\tlabel\na good film\t1\nthe plot was bad\t0\n")
    values = {"source": str(bert_checkpoint), "output": tmp_path / "bundle", "samples": str(data)}
    values |= {"format": ["onnx"], "precision": ["fp32"], "sample_count": 1}
    convert(ConvertConfig.build(values))
    texts = [case.text for case in Bundle.open(tmp_path / "bundle").golden_cases()]
    assert texts[0] == "a good film"
    assert "the plot was bad" not in texts
    golden = Bundle.open(tmp_path / "bundle").manifest.golden
    assert (golden.from_data, golden.samples) == (1, len(texts))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"format": ["onxx"]}, ConfigError, "unknown format 'onxx': did you mean 'onnx'?"),
        ({"precision": ["int9"]}, ConfigError, "unknown precision 'int9': did you mean 'int8'?"),
        ({"seq_length": [1]}, ConfigError, "a sequence length must be at least 4 tokens"),
        (
            {"seq_length": [65]},
            ConfigError,
            "sequence length 65 is beyond the model's 64 positions",
        ),
        ({"samples": "none.tsv"}, UserError, r"data file none\.tsv does not exist"),
        ({"task": "fill-mask"}, CheckpointError, "has no weights for 'cls.predictions.bias'"),
        ({"tsak": "x"}, ConfigError, "unknown key 'tsak', did you mean 'task'?"),
    ],
)
def test_impossible_requests_leave_nothing(
    bert_checkpoint: Path,
    tmp_path: Path,
    values: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(error, match=message):
        convert(ConvertConfig.build({"source": str(bert_checkpoint), "output": output} | values))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_s_own_is_not_replaced(bert_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and was not written by this command"):
        convert(ConvertConfig(source=str(bert_checkpoint), output=tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_checkpoint_that_answers_everything_alike_is_refused(
    bert_checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(bert_checkpoint, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["classifier.weight"].zero_()
    weights["classifier.bias"].zero_()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="output 'logits' is the same for every text"):
        convert(ConvertConfig(source=str(copy), output=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ConversionError("broken")])
def test_an_interruption_keeps_the_old_bundle(
    bert_checkpoint: Path,
    bert_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException | type[BaseException],
) -> None:
    output = Path(shutil.copytree(bert_bundle, tmp_path / "bundle"))
    before = (output / "edge.json").read_text()

    def stop(*_: object) -> None:
        raise problem

    monkeypatch.setattr("converters.onnx.OnnxExport.write", stop)
    with pytest.raises(type(problem) if isinstance(problem, BaseException) else problem):
        convert(ConvertConfig(source=str(bert_checkpoint), output=output))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (output / "edge.json").read_text() == before


def test_a_wrong_artifact_leaves_no_bundle(
    bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask that hides nothing converts, loads and runs; padded inputs give it away."""
    monkeypatch.setattr("converters.graph.MASKED", -1e-3)
    values = {"source": str(bert_checkpoint), "output": tmp_path / "bundle"}
    values |= {"format": ["onnx"], "precision": ["fp32"]}
    with pytest.raises(VerificationError, match="onnx-fp32 failed in onnxruntime: relative error"):
        convert(ConvertConfig.build(values))
    assert list(tmp_path.iterdir()) == []
