"""Packs of bundles whose files are damaged under right checksums: one line, and no file."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from converters.packs import PackConfig, pack
from edge.errors import EdgeError


@pytest.fixture(scope="module")
def storm() -> ModuleType:
    """scripts/storm/bundles.py, which gives altered files right checksums."""
    path = Path(__file__).parents[2] / "scripts" / "storm" / "bundles.py"
    spec = importlib.util.spec_from_file_location("storm_bundles", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4000])


def rename_input(file: Path) -> None:
    import onnx

    model = onnx.load(str(file))
    for node in model.graph.node:
        names = ["pixels" if name == "input_ids" else name for name in node.input]
        del node.input[:]
        node.input.extend(names)
    model.graph.input[0].name = "pixels"
    onnx.save(model, str(file))


@pytest.mark.parametrize(
    ("kind", "name", "damage", "message"),
    [
        ("ort-text", "model-fp32.onnx", cut, "is not a usable ONNX file|cannot load"),
        ("ort-text", "model-fp32.onnx", rename_input, "model-fp32.onnx: .*pixels"),
        ("ort-text", "tokenizer.json", cut, "tokenizer"),
        ("ort-text", "golden.json", cut, "is not a file of golden vectors"),
        ("mediapipe", "model-fp32.tflite", cut, "TFLite|LiteRT|tflite"),
        ("mediapipe", "tokenizer.json", lambda file: file.write_text("{}"), "tokenizer"),
        ("mediapipe", "vocab.txt", lambda file: file.write_bytes(b"\xff"), "vocab|tokenizer"),
    ],
)
def test_damaged_files_are_one_line(
    bert_bundle: Path,
    tmp_path: Path,
    storm: ModuleType,
    kind: str,
    name: str,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    copy = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    damage(copy / name)
    storm.seal(copy)
    suffix = {"ort-text": ".onnx", "mediapipe": ".tflite"}[kind]
    output = tmp_path / "packed" / f"model{suffix}"
    values = {"kind": kind, "bundle": copy, "output": output, "precision": "fp32"}
    with pytest.raises(EdgeError, match=message) as caught:
        pack(PackConfig.build(values))
    assert "\n" not in str(caught.value)
    assert not output.exists()
