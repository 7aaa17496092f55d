"""Damaged model files: an answer or one line, never a traceback, a crash or a wait without end."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import UserError
from edge.inspection import artifact, inspect_target

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
        raise AssertionError("a reader did not return within 30 s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_are_read_or_refused(
    bert_bundle: Path, tmp_path: Path, no_engines: None, deadline: None, name: str
) -> None:
    original = (bert_bundle / name).read_bytes()
    path = tmp_path / name
    refused = 0
    for seed in range(60):
        path.write_bytes(_mutated(original, random.Random(seed)))
        refused += _is_refused(path)
    assert refused > 0


@pytest.mark.parametrize("name", PACKAGES)
def test_mutated_packages_are_read_or_refused(
    bert_bundle: Path, tmp_path: Path, no_engines: None, deadline: None, name: str
) -> None:
    copy = shutil.copytree(bert_bundle / name, tmp_path / name)
    refused = 0
    for seed in range(60):
        part = PARTS[seed % len(PARTS)]
        (copy / part).write_bytes(
            _mutated((bert_bundle / name / part).read_bytes(), random.Random(seed))
        )
        refused += _is_refused(copy)
        shutil.copyfile(bert_bundle / name / part, copy / part)
    assert refused > 0


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


def _mutated(data: bytes, choose: random.Random) -> bytes:
    """Flipped bits, extreme numbers, missing, added and overwritten bytes, or an early end."""
    found = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8, 64])):
        place = choose.randrange(len(found))
        match choose.randrange(6):
            case 0:
                found[place] ^= 1 << choose.randrange(8)
            case 1:
                found[place : place + 4] = choose.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80"])
            case 2:
                del found[place : place + choose.randrange(1, 200)]
            case 3:
                found[place:place] = choose.randbytes(choose.randrange(1, 50))
            case 4:
                del found[max(place, 16) :]
            case _:
                found[place : place + choose.randrange(1, 64)] = choose.randbytes(16)
        found += b"x" * max(0, 16 - len(found))
    return bytes(found)
