"""A damaged bundle is refused in one line, or answers as before; every file and field is tried."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge.bundle import Bundle, Manifest, write_manifest
from edge.errors import BundleError, EdgeError

# Of the damages to single fields, so many are left out between two that are tried.
STRIDE = 23


@pytest.fixture(scope="module")
def storm() -> ModuleType:
    """scripts/storm/bundles.py, which tries many more."""
    path = Path(__file__).parents[2] / "scripts" / "storm" / "bundles.py"
    spec = importlib.util.spec_from_file_location("storm_bundles", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def original(bert_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with its artifacts in ONNX alone; read only."""
    folder = tmp_path_factory.mktemp("damage") / "bundle"
    manifest = Bundle.open(bert_bundle).manifest
    kept = tuple(a for a in manifest.artifacts if a.format == "onnx" and a.precision != "fp16")
    folder.mkdir()
    for name in ("tokenizer.json", "vocab.txt", "golden.json", *(a.file for a in kept)):
        shutil.copy(bert_bundle / name, folder / name)
    write_manifest(folder, manifest.model_copy(update={"artifacts": kept}))
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def _try(original: Path, folder: Path, damages: list[Any], judge: Callable[[Path], Any]) -> None:
    for name, damage in damages:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        damage(folder)
        assert judge(folder) is None, name


def test_damaged_files_are_refused(original: Path, tmp_path: Path, storm: ModuleType) -> None:
    expected = storm.read_outputs(original)
    damages = list(storm.file_damages(original, seeds=3))
    assert {"vocab.txt: empty", "edge.json: content of golden.json"} <= {n for n, _ in damages}
    _try(original, tmp_path / "copy", damages, lambda path: storm.read_fault(path, expected))


@pytest.mark.parametrize("file", ["edge.json", "golden.json"])
@pytest.mark.parametrize("reseal", [False, True])
def test_damaged_fields_are_refused(
    original: Path, tmp_path: Path, storm: ModuleType, file: str, reseal: bool
) -> None:
    """With right checksums another answer is one that was asked for, but never a traceback."""
    expected = storm.read_outputs(original)
    damages = list(storm.field_damages(original, file, reseal=reseal))[::STRIDE]
    judge = storm.resealed_fault if reseal else lambda path: storm.read_fault(path, expected)
    _try(original, tmp_path / "copy", damages, judge)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("artifacts.0.sequence_lengths", [], "sequence_lengths is empty"),
        ("artifacts.0.sequence_lengths", [32, 16], "lengths must ascend, found 32, 16"),
        ("artifacts.0.sequence_lengths", [-1], "greater than or equal to 1"),
        ("artifacts.0.sequence_lengths", [64], "has length 64, max_length is 32"),
        ("artifacts.0.sequence_lengths", [16, 32], "with dynamic_sequence, sequence_lengths"),
        ("artifacts.0.dynamic_sequence", "no", "should be a valid boolean"),
        ("artifacts.0.inputs.0.name", "pixels", "unknown input 'pixels'"),
        ("artifacts.0.inputs.0.name", "attention_mask", "'attention_mask' is there twice"),
        ("artifacts.0.inputs.0.dtype", "float32", "'input_ids' is not int32"),
        ("artifacts.0.outputs.0.name", "scores", "has outputs scores, text-classification has"),
        ("artifacts.0.outputs.0.shape", ["batch", 4], "gives 4 values, labels are 3"),
        ("artifacts.0.runtimes", ["toaster"], "unknown runtime of onnxruntime 'toaster'"),
        ("artifacts.0.target", "avx2", "ONNX for avx2 has no fp32"),
        ("artifacts.0.precision", "int9", "unknown precision 'int9'"),
        ("artifacts.1.precision", "fp32", "'onnx onnxruntime fp32' is there twice"),
        ("artifacts.0.bytes", 7, "gives onnx-fp32 7 bytes"),
        ("artifacts.0.verifications.0.cosine", float("nan"), "finite number"),
        ("labels", ["a", "b"], "gives 3 values, labels are 2"),
        ("labels", [], "at least 1 item"),
        ("max_length", 0, "greater than or equal to 1"),
        ("max_length", "32", "should be a valid integer"),
        ("task", "text-clasification", "did you mean 'text-classification'"),
        ("activation", "sigmoidal", "Input should be 'softmax', 'sigmoid' or 'none'"),
        ("problem_type", "multi", "unknown problem_type 'multi'"),
        ("embedding", {"pooling": "cls", "normalized": True}, "belongs to feature-extraction"),
        ("tokenizer.inputs", ["input_ids"], "tokenizer.inputs lacks attention_mask"),
        ("tokenizer.vocabulary_sha256", None, "vocabulary and vocabulary_sha256 belong together"),
        ("tokenizer.pad_token_id", -1, "greater than or equal to 0"),
        ("source.sha256", "abc", "64 hexadecimal digits"),
        ("golden.samples", 3, "edge.json counts other samples"),
    ],
)
def test_what_makes_no_sense_is_named(
    copy: Path, storm: ModuleType, place: str, value: Any, message: str
) -> None:
    """The checksums are right: what the manifest says is wrong."""
    _set(copy / "edge.json", place, value)
    if place != "artifacts.0.bytes":
        storm.seal(copy)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copy).golden_cases()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("max_length", 31, "its max_length is not edge.json's"),
        ("cases", {}, "its cases are no list"),
        ("cases.0.logits", [0.0, 1.0], r"case 1: logits has shape \(2,\)"),
        ("cases.0.logits", [0.0, 1.0, 1e39], "case 1: logits are not finite"),
        ("cases.0.logits", ["0", "1", "2"], "case 1: logits are no numbers"),
        ("cases.0.logits", [[0.0], [1.0, 2.0], []], "is not a file of golden vectors"),
        ("cases.0.input_ids", [2, -3], "case 1: input_ids is no list of ids"),
        ("cases.0.input_ids", [2] * 33, "case 1 has 33 tokens"),
        ("cases.0.token_type_ids", None, "token_type_ids do not fit"),
        ("cases.0.text", 5, "case 1: text is no string"),
        ("cases.0.label", "x", "case 1 has other keys than"),
    ],
)
def test_golden_vectors_that_make_no_sense_are_named(
    copy: Path, storm: ModuleType, place: str, value: Any, message: str
) -> None:
    _set(copy / "golden.json", place, value)
    storm.seal(copy)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copy).golden_cases()
    assert "\n" not in str(caught.value)


def test_a_manifest_without_its_own_checksum_is_refused(copy: Path) -> None:
    _set(copy / "edge.json", "sha256", None)
    with pytest.raises(BundleError, match="has no checksum of its own: run edge convert again"):
        Bundle.open(copy)


def test_a_label_of_another_name_is_not_taken(copy: Path) -> None:
    """A manifest that still makes sense is not what was written."""
    _set(copy / "edge.json", "labels.0", "glad")
    with pytest.raises(BundleError, match=r"edge\.json was altered after the bundle was written"):
        Bundle.open(copy)


def test_files_that_do_not_belong_to_a_bundle_are_told(copy: Path) -> None:
    from edge.inspection import inspect_target

    (copy / "model-fp16.onnx").write_bytes(b"left over")
    assert Bundle.open(copy).unlisted() == ("model-fp16.onnx",)
    found = inspect_target(copy)
    assert found.kind == "bundle"
    assert found.unlisted == ("model-fp16.onnx",)


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["inspect"],
        ["predict", "--text", "a good film"],
        ["evaluate", "--data", "data.tsv"],
        ["benchmark", "--baseline", "none", "--output", "report"],
        ["pack", "ort-text", "-o", "packed.onnx"],
    ],
)
@pytest.mark.parametrize("name", ["vocab.txt", "edge.json"])
def test_every_command_refuses_an_altered_file(
    copy: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str
) -> None:
    from edge.cli.app import app

    monkeypatch.chdir(copy.parent)
    Path("data.tsv").write_text("text\tlabel\na good film\tpositive\n")
    text = (copy / name).read_text()
    (copy / name).write_text(text.replace("positive", "Positive").replace("film", "fiml"))
    place = 2 if arguments[0] == "pack" else 1
    with pytest.raises(EdgeError, match="was altered after the bundle was written") as caught:
        app([*arguments[:place], str(copy), *arguments[place:]], standalone_mode=False)
    assert caught.value.exit_code == 2


def _set(file: Path, place: str, value: Any) -> None:
    """Change the field at a dotted place of a JSON file."""
    values = json.loads(file.read_text())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = values
    for part in path:
        inner = inner[part]
    inner[last] = value
    file.write_text(json.dumps(values))


def test_a_written_manifest_is_sealed(copy: Path) -> None:
    manifest = Bundle.open(copy).manifest
    changed = manifest.model_copy(update={"created_utc": "2030-01-01T00:00:00+00:00"})
    sealed: Manifest = write_manifest(copy, changed)
    assert sealed.sha256 != manifest.sha256
    assert Bundle.open(copy).manifest == sealed
