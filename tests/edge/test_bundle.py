"""A bundle is opened only when it is what its manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import edge.bundle
from edge.bundle import Bundle, Verification, json_schema
from edge.errors import BundleError, ConfigError


@pytest.fixture
def copy(bert_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_bundle, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "edge.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_the_shipped_schema_is_current_and_fits(bert_bundle: Path) -> None:
    shipped = json.loads((Path(edge.bundle.__file__).parent / "schema.json").read_text())
    assert shipped == json_schema(), "write edge.bundle.json_schema() to edge/bundle/schema.json"
    manifest = json.loads((bert_bundle / "edge.json").read_text())
    jsonschema.validate(manifest, shipped)
    del manifest["artifacts"][0]["sha256"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, shipped)


def test_a_bundle_holds_what_was_asked_for(bert_bundle: Path) -> None:
    manifest = Bundle.open(bert_bundle).manifest
    names = {artifact.name for artifact in manifest.artifacts}
    assert names == {
        f"{f}-{p}" for f in ("onnx", "tflite", "coreml") for p in ("fp32", "fp16", "int8")
    }
    for artifact in manifest.artifacts:
        assert artifact.verification is not None
        assert artifact.verification.status == "passed"
        assert artifact.verification.samples >= 20
    assert (bert_bundle / "vocab.txt").read_text().splitlines()[:2] == ["[PAD]", "[UNK]"]


def test_golden_vectors_cover_hard_inputs(bert_bundle: Path) -> None:
    cases = Bundle.open(bert_bundle).golden_cases()
    texts = [case.text for case in cases]
    assert "" in texts
    assert any(case.text_pair for case in cases)
    assert any("é" in text for text in texts)
    assert any("今" in text for text in texts)
    assert any("😀" in text for text in texts)
    longest = max(cases, key=lambda case: len(case.text))
    assert len(longest.input_ids) == 32
    assert all(case.outputs["logits"].shape == (3,) for case in cases)
    assert all(np.isfinite(case.outputs["logits"]).all() for case in cases)


def alter(folder: Path) -> None:
    file = folder / "model-int8.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def point_outside(values: dict[str, Any]) -> None:
    values["artifacts"][0]["file"] = "../../etc/passwd"


def point_to_absolute(values: dict[str, Any]) -> None:
    values["tokenizer"]["file"] = "/etc/passwd"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (alter, r"model-int8\.onnx was altered after the bundle was written"),
        (lambda f: (f / "golden.json").write_text("{}"), r"golden\.json was altered"),
        (lambda f: (f / "model-fp32.onnx").unlink(), r"'model-fp32\.onnx' is missing"),
        (lambda f: edit(f, point_outside), "the manifest points outside the bundle: '../../etc"),
        (lambda f: edit(f, point_to_absolute), "points outside the bundle: '/etc/passwd'"),
        (lambda f: edit(f, lambda v: v.update(schema_version="9")), "has schema version '9'"),
        (lambda f: edit(f, lambda v: v.update(artefacts=[])), "unknown key 'artefacts', did you"),
        (lambda f: (f / "edge.json").write_text("[1"), "is not valid JSON"),
        (lambda f: (f / "edge.json").write_text("[1]"), "must hold an object, found list"),
        (lambda f: (f / "edge.json").unlink(), r"is not a bundle \(no edge\.json\)"),
        (lambda f: shutil.rmtree(f), "does not exist: check the path"),
    ],
)
def test_damaged_bundles_are_refused(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_link_out_of_the_bundle_is_outside(copy: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").symlink_to(secret)
    with pytest.raises(BundleError, match="points outside the bundle: 'tokenizer.json'"):
        Bundle.open(copy)


def test_selection_names_the_nearest(bert_bundle: Path) -> None:
    bundle = Bundle.open(bert_bundle)
    assert [a.name for a in bundle.select(["onnx"], ["int8"])] == ["onnx-int8"]
    with pytest.raises(ConfigError, match="did you mean 'tflite'?"):
        bundle.select(["tflit"])


@pytest.mark.parametrize(("tokens", "length"), [(1, 16), (16, 16), (17, 32), (40, 32)])
def test_fixed_lengths_take_the_next_larger(bert_bundle: Path, tokens: int, length: int) -> None:
    artifact = Bundle.open(bert_bundle).select(["tflite"], ["fp32"])[0]
    assert artifact.fit_length(tokens) == length


@pytest.mark.parametrize(("tokens", "length"), [(1, 4), (17, 17), (40, 32)])
def test_flexible_lengths_take_the_text_s_own(bert_bundle: Path, tokens: int, length: int) -> None:
    artifact = Bundle.open(bert_bundle).select(["onnx"], ["fp32"])[0]
    assert artifact.fit_length(tokens) == length


def test_answers_without_labels_are_told_by_their_cosine() -> None:
    values = {"status": "passed", "engine": "litert", "cosine": 0.99886}
    assert Verification.model_validate(values).agreement_text == "cosine 0.9989"
    assert Verification.model_validate({**values, "label_agreement": 0.5}).agreement_text == "0.500"
    assert Verification.model_validate({**values, "cosine": None}).agreement_text == "-"
