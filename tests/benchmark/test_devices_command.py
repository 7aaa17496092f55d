"""`edge devices` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark import adbd, stand_ins

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: object, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge.cli.main", "devices", *map(str, arguments)],
        cwd=ROOT,
        env={"PATH": path, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
    )


def test_every_kind_has_a_line_and_a_reason_where_it_times_nothing(tmp_path: Path) -> None:
    from benchmark.devices import DEVICES

    # Not even adb, which may be installed here.
    done = _run("--json", path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    for one in found:
        assert sorted(one) == ["formats", "reason", "spec", "title"]
        assert bool(one["formats"]) == (one["reason"] is None)
        assert "\n" not in str(one["reason"])
    kinds = {one["spec"].partition(":")[0] for one in found}
    assert {"local", "adb", "coreml"} <= kinds <= set(DEVICES)
    local = next(one for one in found if one["spec"] == "local")
    assert {"onnx", "tflite"} <= set(local["formats"])
    adb = next(one for one in found if one["spec"] == "adb")
    assert "adb is not installed: install Android's platform-tools" in adb["reason"]


def test_a_table_for_people() -> None:
    lines = _run().stdout.splitlines()
    assert lines[0].split("\t") == ["--device", "what it is", "times", "why not"]
    assert lines[1].startswith("local\t")


def test_a_phone_with_tools_and_without(tmp_path: Path) -> None:
    """The real adb and adbd; the tools are stand-ins, of which nothing is run."""
    if (reason := adbd.obstacle()) is not None:
        pytest.skip(reason)
    tools = stand_ins.make_tools(tmp_path / "tools", "benchmark_model")
    with adbd.Lab(tmp_path / "lab") as lab:
        device = lab.device()
        path = f"{lab.bin}:/usr/bin:/bin"
        lines = [_line(_run(*more, path=path).stdout) for more in ([], ["--tools", tools])]
        assert lines[0][:3] == [f"adb:{device.serial}", "Acme Slate 7", "-"]
        assert "nothing on 127" in lines[0][3] and "--tools" in lines[0][3]
        assert lines[1] == [f"adb:{device.serial}", "Acme Slate 7", "tflite", ""]
        assert device.shell("ls /data/local/tmp") == ""


def _line(text: str) -> list[str]:
    return next(line.split("\t") for line in text.splitlines() if line.startswith("adb"))
