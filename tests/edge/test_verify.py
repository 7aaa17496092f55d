"""Verification finds wrong artifacts; each way of being wrong is tried."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, Manifest, Verification, write_manifest
from edge.errors import EngineError, VerificationError
from edge.precision import Gate, Precision
from edge.storage import sha256, size_bytes
from edge.tasks import get_task
from edge.tokenization import Encoding
from edge.verify import Tally, require_passed, verify

GATE = Gate(max_relative_error=1e-2, min_cosine=0.99, min_label_agreement=0.9)
TASK = get_task("text-classification", labels=("a", "b"))
ENCODING = Encoding([2, 3])


def tally(pairs: list[tuple[list[float], list[float]]]) -> Tally:
    found = Tally()
    for ours, theirs in pairs:
        outputs = {"logits": np.array(ours, np.float32)}
        expected = {"logits": np.array(theirs, np.float32)}
        found.add(TASK, ENCODING, outputs, expected, 16)
    return found


def test_figures_are_those_worked_out_by_hand() -> None:
    result = tally([([1.0, 2.0], [1.0, 2.5]), ([4.0, 1.0], [4.0, 1.0])]).verification(
        "e", "1", GATE
    )
    # Largest difference 0.5 over the largest reference 4.
    assert result.max_relative_error == pytest.approx(0.125)
    ours, theirs = np.array([1, 2, 4, 1.0]), np.array([1, 2.5, 4, 1])
    expected = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert result.cosine == pytest.approx(expected)
    assert result.label_agreement == 1.0
    assert (result.samples, result.sequence_lengths) == (2, (16,))
    assert (result.status, result.reason) == ("failed", "relative error 0.12, allowed 0.01")


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([([float("nan"), 1.0], [0.0, 1.0])], "outputs are not finite"),
        ([([float("inf"), 1.0], [0.0, 1.0])], "outputs are not finite"),
        ([([0.0, 0.0], [1.0, 2.0])], "relative error 1, allowed 0.01"),
        ([([100.0, 1.0], [100.0, 1.0]), ([0.0, 0.1], [0.1, 0.0])], "label agreement 0.500"),
        ([([1.0, 2.0], [1.0, 2.0])], None),
    ],
)
def test_each_way_of_being_wrong_is_named(
    pairs: list[tuple[list[float], list[float]]], reason: str | None
) -> None:
    result = tally(pairs).verification("e", None, GATE)
    assert result.status == ("passed" if reason is None else "failed")
    assert (reason or "") in (result.reason or "")


def test_a_different_shape_is_not_broadcast() -> None:
    with pytest.raises(EngineError, match=r"output 'logits' has shape \(1,\), expected \(2,\)"):
        tally([([1.0], [1.0, 2.0])])
    with pytest.raises(EngineError, match="output 'logits' has shape None"):
        Tally().add(TASK, ENCODING, {}, {"logits": np.zeros(2)}, 16)


def test_every_artifact_passes_again_from_the_bundle_alone(bert_bundle: Path) -> None:
    for artifact in verify(Bundle.open(bert_bundle)):
        require_passed(artifact)
        assert len(artifact.verifications) == len(artifact.runtimes)
        error = artifact.verification.max_relative_error  # type: ignore[union-attr]
        assert error is not None
        assert error < Precision(artifact.precision).gate.max_relative_error


def test_core_ml_names_what_ran_it(bert_bundle: Path) -> None:
    import platform

    found = verify(Bundle.open(bert_bundle), formats=["coreml"], precisions=["fp16"])
    expected = "coreml" if platform.system() == "Darwin" else "mil-interpreter"
    assert found[0].verification is not None
    assert found[0].verification.engine == expected


def test_another_model_s_file_is_caught(
    bert_bundle: Path, tmp_path: Path, tiny_checkpoint: object
) -> None:
    """The file is valid and its checksum fits; only running it can tell."""
    from converters import ConvertConfig, convert

    other = tiny_checkpoint(tmp_path / "other", "bert", seed=1)  # type: ignore[operator]
    convert(
        ConvertConfig.build(
            {
                "source": str(other),
                "output": tmp_path / "wrong",
                "format": ["onnx"],
                "precision": ["fp32"],
                "seq_length": [16],
            }
        )
    )
    copy = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    shutil.copy(tmp_path / "wrong" / "model-fp32.onnx", copy / "model-fp32.onnx")
    manifest = json.loads((copy / "edge.json").read_text())
    for artifact in manifest["artifacts"]:
        artifact["sha256"] = sha256(copy / artifact["file"])
        artifact["bytes"] = size_bytes(copy / artifact["file"])
    write_manifest(copy, Manifest.build(manifest))
    found = verify(Bundle.open(copy), formats=["onnx"], precisions=["fp32"])[0]
    with pytest.raises(VerificationError, match="onnx-fp32 failed in onnxruntime: relative error"):
        require_passed(found)


@pytest.mark.parametrize("saturates", [True, False])
def test_a_failure_of_int8_names_the_processor_that_causes_it(
    bert_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    monkeypatch.setattr("edge.verify.saturates_int8", lambda: saturates)
    copy = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    for precision in ("int8", "fp16"):
        _spoil(copy, f"model-{precision}.onnx")
    found = verify(Bundle.open(copy), formats=["onnx"], precisions=["int8", "fp16"])
    reasons = {a.precision: a.verification.reason for a in found if a.verification}
    assert ("this processor lacks VNNI" in str(reasons["int8"])) == saturates
    assert ("add --target avx2" in str(reasons["int8"])) == saturates
    assert reasons["fp16"]
    assert "VNNI" not in reasons["fp16"]


def _spoil(folder: Path, file: str) -> None:
    """Raise the bias of the first class, and note the new checksum."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(folder / file))
    (bias,) = [t for t in model.graph.initializer if t.name.endswith("classifier.bias")]
    values = numpy_helper.to_array(bias) + np.array([9, 0, 0], dtype=np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, str(folder / file))
    manifest = json.loads((folder / "edge.json").read_text())
    for artifact in manifest["artifacts"]:
        artifact["sha256"] = sha256(folder / artifact["file"])
        artifact["bytes"] = size_bytes(folder / artifact["file"])
    write_manifest(folder, Manifest.build(manifest))


def test_a_tokenizer_that_differs_is_caught(bert_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    file = copy / "tokenizer.json"
    values = json.loads(file.read_text())
    values["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(values))
    manifest = json.loads((copy / "edge.json").read_text())
    manifest["tokenizer"]["sha256"] = sha256(file)
    write_manifest(copy, Manifest.build(manifest))
    with pytest.raises(VerificationError, match="the bundle's tokenizer differs from the checkpoi"):
        verify(Bundle.open(copy))


def _verification(engine: str, status: str, samples: int) -> Verification:
    return Verification.model_validate({"engine": engine, "status": status, "samples": samples})


@pytest.mark.parametrize(
    ("second", "verdict", "line"),
    [
        (("passed", 9), "passed", None),
        (
            ("failed", 9),
            "not declared (answers differ)",
            "is not declared for old (answers differ)",
        ),
        (("failed", 0), "not declared (does not run)", "is not declared for old (does not run)"),
        (("unavailable", 0), "not tried", "was not tried in old"),
    ],
)
def test_only_the_main_engine_makes_an_artifact_fail(
    bert_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    second: tuple[str, int],
    verdict: str,
    line: str | None,
) -> None:
    from edge.cli.verify import print_verifications

    artifact = Bundle.open(bert_bundle).select(["tflite"], ["fp32"])[0]
    main = _verification("main", "passed", 9)
    results = (main, _verification("old", *second))
    artifact = artifact.model_copy(update={"verification": main, "verifications": results})
    assert [artifact.verdict(result) for result in results] == ["passed", verdict]
    require_passed(artifact)
    print_verifications("bundle", [artifact])
    shown = capsys.readouterr()
    assert verdict in shown.out.splitlines()[2].split("\t")
    assert "failed" not in shown.out + shown.err
    assert shown.err == ("" if line is None else f"tflite-fp32 {line}: None\n")


def test_a_main_engine_that_differs_fails(bert_bundle: Path) -> None:
    artifact = Bundle.open(bert_bundle).select(["tflite"], ["fp32"])[0]
    main = _verification("main", "failed", 9)
    artifact = artifact.model_copy(update={"verification": main, "verifications": (main,)})
    with pytest.raises(VerificationError, match="tflite-fp32 failed in main"):
        require_passed(artifact)
