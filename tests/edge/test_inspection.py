"""`edge inspect`: what is in a bundle, a model file or a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.bundle import Bundle
from edge.cli.inspect import inspect as command
from edge.errors import BundleError, CheckpointError, ConfigError
from edge.inspection import ArtifactInspection, artifact, inspect_target, loading

# Of the tiny BERT: 111 words of width 32, 64 positions, 2 token types, one norm.
WIDTH, WORDS, POSITIONS, LABELS = 32, 111, 64, 3
LAYER = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH * 64 + 64 + WIDTH + 4 * WIDTH
EMBEDDINGS = (WORDS + POSITIONS + 2) * WIDTH + 2 * WIDTH
HEAD = WIDTH * WIDTH + WIDTH + LABELS * WIDTH + LABELS
PARAMETERS = EMBEDDINGS + 2 * LAYER + HEAD


@pytest.fixture(scope="module")
def found(bert_bundle: Path) -> dict[str, ArtifactInspection]:
    """Every artifact of the bundle, opened in the engines that are here."""
    bundle = Bundle.open(bert_bundle)
    return {
        a.name: artifact.inspect_artifact(bundle.artifact_path(a), top=1000)
        for a in bundle.manifest.artifacts
    }


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only take files apart: a process for each of many files would take minutes."""
    monkeypatch.setattr(artifact, "try_engines", lambda path, format_name: ())


def test_the_checkpoint_is_counted_exactly(bert_checkpoint: Path) -> None:
    checkpoint = inspect_target(bert_checkpoint)
    assert checkpoint.kind == "checkpoint"
    assert checkpoint.architecture == "BertForSequenceClassification"
    assert (checkpoint.task, checkpoint.labels) == (
        "text-classification",
        ("negative", "neutral", "positive"),
    )
    assert (checkpoint.max_length, checkpoint.vocabulary_size) == (POSITIONS, WORDS)
    assert checkpoint.parameters_by_layer == {
        "embeddings": EMBEDDINGS,
        "layer 0": LAYER,
        "layer 1": LAYER,
        "head": HEAD,
    }
    assert checkpoint.parameters_by_dtype == {"float32": PARAMETERS}
    assert {f.format: f.possible for f in checkpoint.formats} == {
        "onnx": True,
        "tflite": True,
        "coreml": True,
    }


def test_a_distilbert_checkpoint_has_the_same_parts(distilbert_checkpoint: Path) -> None:
    checkpoint = inspect_target(distilbert_checkpoint)
    assert checkpoint.kind == "checkpoint"
    assert list(checkpoint.parameters_by_layer) == ["embeddings", "layer 0", "layer 1", "head"]
    assert checkpoint.parameters_by_layer["layer 1"] == LAYER


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("form", ["onnx", "coreml"])
def test_an_artifact_has_as_many_parameters_as_its_checkpoint(
    found: dict[str, ArtifactInspection], form: str, precision: str
) -> None:
    assert found[f"{form}-{precision}"].parameters == PARAMETERS


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tflite_stores_what_its_lengths_share_once(
    found: dict[str, ArtifactInspection], precision: str
) -> None:
    """Positions are the exception: each length carries its own slice of them."""
    own = (16 + 32 - POSITIONS) * WIDTH
    assert found[f"tflite-{precision}"].parameters == PARAMETERS + own


def test_signatures_are_those_of_the_manifest(found: dict[str, ArtifactInspection]) -> None:
    names = {"input_ids", "attention_mask", "token_type_ids"}
    onnx, tflite, coreml = (found[f"{form}-fp32"] for form in ("onnx", "tflite", "coreml"))
    assert [signature.name for signature in tflite.signatures] == ["length_16", "length_32"]
    for one, shape in (
        (onnx.signatures[0], ("batch", "sequence")),
        (tflite.signatures[1], (1, 32)),
        (coreml.signatures[0], (1, "4..32")),
    ):
        assert {spec.name: (spec.dtype, spec.shape) for spec in one.inputs} == dict.fromkeys(
            names, ("int32", shape)
        )
        assert [(spec.name, spec.dtype) for spec in one.outputs] == [("logits", "float32")]


@pytest.mark.parametrize("form", ["onnx", "tflite", "coreml"])
@pytest.mark.parametrize(
    ("precision", "dtypes"), [("fp32", "float32"), ("fp16", "float16"), ("int8", "int8 uint8")]
)
def test_large_weights_have_the_type_of_the_precision(
    found: dict[str, ArtifactInspection], form: str, precision: str, dtypes: str
) -> None:
    weights = [t for t in found[f"{form}-{precision}"].tensors if t.role == "weight"]
    assert sum(t.elements for t in weights) == found[f"{form}-{precision}"].parameters
    assert {t.dtype for t in weights if t.elements > 1024} <= set(dtypes.split())


def test_bytes_add_up_to_the_file(found: dict[str, ArtifactInspection], bert_bundle: Path) -> None:
    for entry in Bundle.open(bert_bundle).manifest.artifacts:
        one = found[entry.name]
        assert one.size_bytes == entry.bytes
        assert sum(one.size_bytes_by_layer.values()) == entry.bytes
        assert sum(one.size_bytes_by_dtype.values()) == entry.bytes
        assert 0 < one.size_bytes_by_layer["structure"] < entry.bytes
        layers = [name for name in one.size_bytes_by_layer if name != "other"]
        assert layers == ["embeddings", "layer 0", "layer 1", "head", "structure"]


@pytest.mark.parametrize("form", ["onnx", "tflite", "coreml"])
def test_every_weight_finds_its_layer(found: dict[str, ArtifactInspection], form: str) -> None:
    for precision in ("fp32", "fp16", "int8"):
        weights = [t for t in found[f"{form}-{precision}"].tensors if t.role == "weight"]
        for number in range(2):
            elements = sum(t.elements for t in weights if t.layer == f"layer {number}")
            assert elements == LAYER, f"{form}-{precision} layer {number}"
        assert sum(t.elements for t in weights if t.layer == "head") == HEAD
        assert not [t.name for t in weights if t.layer == "other"]


def test_int8_carries_scales(found: dict[str, ArtifactInspection]) -> None:
    for form in ("onnx", "tflite", "coreml"):
        assert not [t for t in found[f"{form}-fp32"].tensors if t.role == "scale"]
        assert [t for t in found[f"{form}-int8"].tensors if t.role == "scale"]


def test_operators_are_counted(found: dict[str, ArtifactInspection]) -> None:
    assert found["onnx-fp32"].operators["MatMul"] >= 12
    assert found["onnx-int8"].operators["MatMulIntegerToFloat"] >= 12
    # Both lengths.
    assert found["tflite-fp32"].operators["SOFTMAX"] == 4
    assert found["coreml-fp32"].operators["softmax"] == 2
    assert found["coreml-int8"].operators["constexpr_affine_dequantize"] > 0
    assert "const" not in found["coreml-fp32"].operators


def test_engines_that_are_here_open_the_files(found: dict[str, ArtifactInspection]) -> None:
    for name, engine in (
        ("onnx-int8", "onnxruntime"),
        ("tflite-int8", "litert"),
        ("coreml-int8", "mil-interpreter"),
    ):
        check = next(r for r in found[name].runtimes if r.engine == engine)
        assert (check.status, check.reason) == ("loads", None)
        assert check.version


def test_an_engine_that_fails_is_reported(bert_bundle: Path, tmp_path: Path) -> None:
    """The file can be read, but names an operator that no engine has."""
    import onnx

    model = onnx.load(bert_bundle / "model-fp32.onnx")
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, tmp_path / "model.onnx")
    one = inspect_target(tmp_path / "model.onnx")
    assert one.kind == "artifact"
    assert one.operators["Nonsense"] == 1
    assert {check.engine for check in one.runtimes} == {"onnxruntime", "onnx-reference"}
    for check in one.runtimes:
        assert check.status == "fails"
        assert "Nonsense" in str(check.reason)
        assert "\n" not in str(check.reason)


def test_an_engine_that_crashes_is_reported(
    bert_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = loading.try_engines(bert_bundle / "model-fp32.onnx", "onnx")[0]
    assert (check.status, check.reason) == ("fails", "its process ended with SIGABRT")


def test_an_engine_that_never_answers_is_stopped(bert_bundle: Path, tmp_path: Path) -> None:
    reason = loading._load_failure("onnxruntime", bert_bundle / "model-fp32.onnx", timeout_s=0.01)
    assert reason == "it did not open the file within 0.01 s"


def test_a_checkpoint_with_pickled_weights_needs_the_flag(
    bert_checkpoint: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    copy = shutil.copytree(bert_checkpoint, tmp_path / "copy")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        inspect_target(copy)
    checkpoint = inspect_target(copy, allow_pickle=True)
    assert checkpoint.kind == "checkpoint"
    assert checkpoint.parameters == PARAMETERS
    assert checkpoint.parameters_by_layer["layer 1"] == LAYER


def test_a_real_teacher(sst2_teacher: Path) -> None:
    checkpoint = inspect_target(sst2_teacher)
    assert checkpoint.kind == "checkpoint"
    assert checkpoint.parameters == 22_713_986
    assert len([name for name in checkpoint.parameters_by_layer if "layer" in name]) == 6


def test_the_command_prints_every_part(
    bert_bundle: Path,
    bert_checkpoint: Path,
    no_engines: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(bert_bundle)
    out = capsys.readouterr().out
    assert "task\ttext-classification\n" in out
    assert len([line for line in out.splitlines() if line.startswith("tflite-int8\t")]) == 2
    command(bert_bundle, artifact="tflite-int8", top=1)
    out = capsys.readouterr().out
    assert "length_32\tinput\tinput_ids\tint32\t1x32\n" in out
    assert "\nlayer 1\t" in out
    command(bert_checkpoint)
    out = capsys.readouterr().out
    assert f"parameters\t{PARAMETERS:,}\n" in out
    assert "coreml\tyes\t\t\n" in out


def test_json_is_the_inspection(
    bert_bundle: Path, no_engines: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command(bert_bundle / "model-fp16.mlpackage", top=0, json=True)
    one = ArtifactInspection.model_validate(json.loads(capsys.readouterr().out))
    assert (one.format, one.parameters, one.tensors) == ("coreml", PARAMETERS, ())


def test_a_bundle_is_its_manifest(bert_bundle: Path) -> None:
    bundle = inspect_target(bert_bundle)
    assert bundle.kind == "bundle"
    assert bundle.manifest == json.loads((bert_bundle / "edge.json").read_text())
    assert bundle.size_bytes > sum(a["bytes"] for a in bundle.manifest["artifacts"])


def test_one_artifact_of_a_bundle(bert_bundle: Path, no_engines: None) -> None:
    one = inspect_target(bert_bundle, artifact="tflite-int8", top=2)
    assert one.kind == "artifact"
    assert one.manifest is not None and one.manifest.precision == "int8"
    assert one.size_bytes == one.manifest.bytes
    assert len(one.tensors) == 2
    assert one.tensors[0].size_bytes >= one.tensors[1].size_bytes


def test_what_cannot_be_inspected_is_said_in_one_line(
    bert_bundle: Path, bert_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'onnx-int8'"):
        inspect_target(bert_bundle, artifact="onnx-in8")
    with pytest.raises(ConfigError, match="--artifact chooses from a bundle"):
        inspect_target(bert_checkpoint, artifact="onnx-int8")
    with pytest.raises(BundleError, match=r"nothing-here does not exist"):
        inspect_target(tmp_path / "nothing-here")
    with pytest.raises(BundleError, match=r"neither a bundle .* nor a model file"):
        inspect_target(tmp_path)
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(BundleError, match=r"neither a bundle .* nor a model file"):
        inspect_target(tmp_path / "notes.txt")
    (tmp_path / "model.mlpackage").write_text("not a folder")
    with pytest.raises(BundleError, match=r"is a file: Core ML's \.mlpackage is a folder"):
        inspect_target(tmp_path / "model.mlpackage")
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"is a folder: ONNX's \.onnx is a file"):
        inspect_target(tmp_path / "model.onnx")


def test_an_altered_bundle_is_refused(bert_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bert_bundle, tmp_path / "copy")
    with (copy / "model-fp32.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="was altered"):
        inspect_target(copy)


def test_a_checkpoint_with_damaged_weights_is_refused(
    bert_checkpoint: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(bert_checkpoint, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="is corrupted"):
        inspect_target(copy)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"words, not a model", b"\0" * 4096, b"PK\3\4" * 100])
def test_a_file_that_is_not_what_its_name_says(
    tmp_path: Path, suffix: str, content: bytes, no_engines: None
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is not a usable .* file") as caught:
        inspect_target(path)
    assert "\n" not in str(caught.value)


def test_one_format_under_the_name_of_another(
    bert_bundle: Path, tmp_path: Path, no_engines: None
) -> None:
    for source, name in (("model-fp32.onnx", "a.tflite"), ("model-fp32.tflite", "b.onnx")):
        shutil.copyfile(bert_bundle / source, tmp_path / name)
        with pytest.raises(BundleError, match="is not a usable"):
            inspect_target(tmp_path / name)


def test_an_empty_package(tmp_path: Path) -> None:
    (tmp_path / "model.mlpackage").mkdir()
    with pytest.raises(BundleError, match=r"it has no Manifest\.json"):
        inspect_target(tmp_path / "model.mlpackage")


def test_a_package_without_its_weights(bert_bundle: Path, tmp_path: Path, no_engines: None) -> None:
    copy = shutil.copytree(bert_bundle / "model-fp16.mlpackage", tmp_path / "model.mlpackage")
    (copy / "Data/com.apple.CoreML/weights/weight.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="are not in its weight file"):
        inspect_target(copy)
