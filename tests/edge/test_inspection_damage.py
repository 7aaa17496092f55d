"""Damaged model files: an answer or one line, never a traceback, a crash or a wait without end."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import BundleError, UserError
from edge.inspection import artifact, inspect_target

MUTATIONS = 500
FILES = ["model-fp32.onnx", "model-int8.onnx", "model-fp32.tflite", "model-int8.tflite"]
PACKAGES = ["model-fp16.mlpackage", "model-int8.mlpackage"]
PARTS = ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"]


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only take files apart: a process for each of many files would take minutes."""
    monkeypatch.setattr(artifact, "try_engines", lambda path, format_name: ())


@pytest.fixture
def deadline() -> Iterator[None]:
    """A reader that never returns fails the test."""

    def expired(number: int, frame: object) -> None:
        raise AssertionError("a reader did not return within minutes")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def mutated() -> Callable[[bytes, int], bytes]:
    """`mutated(data, seed)` of tests/mutations.py."""
    spec = importlib.util.spec_from_file_location(
        "mutations", Path(__file__).resolve().parent.parent / "mutations.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[bytes, int], bytes] = module.mutated
    return found


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_are_read_or_refused(
    bert_bundle: Path,
    tmp_path: Path,
    no_engines: None,
    deadline: None,
    mutated: Callable[[bytes, int], bytes],
    name: str,
) -> None:
    original = (bert_bundle / name).read_bytes()
    path = tmp_path / name
    refused = 0
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(original, seed))
        refused += _is_refused(path)
    assert 0 < refused < MUTATIONS
    assert [left.name for left in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", PACKAGES)
def test_mutated_packages_are_read_or_refused(
    bert_bundle: Path,
    tmp_path: Path,
    no_engines: None,
    deadline: None,
    mutated: Callable[[bytes, int], bytes],
    name: str,
) -> None:
    copy = shutil.copytree(bert_bundle / name, tmp_path / name)
    before = _files(tmp_path)
    refused = 0
    for seed in range(MUTATIONS):
        part = PARTS[seed % len(PARTS)]
        (copy / part).write_bytes(mutated((bert_bundle / name / part).read_bytes(), seed))
        refused += _is_refused(copy)
        shutil.copyfile(bert_bundle / name / part, copy / part)
    assert 0 < refused < MUTATIONS
    assert _files(tmp_path) == before


def test_mutated_manifests_are_read_or_refused(
    bert_bundle: Path, tmp_path: Path, deadline: None, mutated: Callable[[bytes, int], bytes]
) -> None:
    copy = shutil.copytree(bert_bundle, tmp_path / "bundle")
    original = (copy / "edge.json").read_bytes()
    before = _files(tmp_path)
    refused = 0
    for seed in range(MUTATIONS):
        (copy / "edge.json").write_bytes(mutated(original, seed))
        refused += _is_refused(copy)
    (copy / "edge.json").write_bytes(original)
    assert refused > MUTATIONS // 2
    assert _files(tmp_path) == before


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/passwd", "", ".", "a/../../b", "x\0y"])
def test_a_manifest_cannot_point_outside(bert_bundle: Path, tmp_path: Path, path: str) -> None:
    copy = shutil.copytree(bert_bundle, tmp_path / "bundle")
    values = json.loads((copy / "edge.json").read_text())
    values["artifacts"][0]["file"] = path
    (copy / "edge.json").write_text(json.dumps(values))
    assert _is_refused(copy)


def test_engines_survive_mutated_files(bert_bundle: Path, tmp_path: Path) -> None:
    """A truncated weight is found by the reader, a flipped one may load: both are answers."""
    path = tmp_path / "model.tflite"
    data = bytearray((bert_bundle / "model-fp32.tflite").read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    one = inspect_target(path)
    assert one.kind == "artifact"
    assert {r.status for r in one.runtimes} <= {"loads", "fails", "unavailable"}


def _is_refused(path: Path) -> bool:
    try:
        inspect_target(path).model_dump_json()
    except UserError as error:
        assert "\n" not in str(error)
        return True
    return False


def _files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_operator_whose_name_is_not_utf8_is_refused(bert_bundle: Path, tmp_path: Path) -> None:
    data = (bert_bundle / "model-fp32.onnx").read_bytes()
    assert b"Gather" in data
    (tmp_path / "a.onnx").write_bytes(data.replace(b"Gather", b"G\xe1ther"))
    with pytest.raises(BundleError, match=r"operator b'G\\xe1ther' is not UTF-8"):
        inspect_target(tmp_path / "a.onnx")
