"""What is carried to a Python elsewhere, our own modules and wheels for it; and names of hosts."""

from __future__ import annotations

import ast
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmark.config import DeviceOptions
from benchmark.devices.local import worker_command
from benchmark.devices.remote import foreign, wheels
from benchmark.devices.remote.foreign import Foreign
from benchmark.devices.remote.shell import check_host
from benchmark.devices.remote.ssh import SshDevice, configured_hosts
from edge.engines.base import Availability
from edge.errors import ConfigError, EngineError

ROOT = Path(foreign.__file__).resolve().parents[3]
PI = Foreign((3, 11, 2), "aarch64", 36, {})
IMPORTS = """
import importlib, sys, zipfile
archive, own, *refused = sys.argv[1:]
sys.modules.update(dict.fromkeys(refused))
sys.path[:] = [archive, *(p for p in sys.path if p not in (own, ""))]
for name in zipfile.ZipFile(archive).namelist():
    module = importlib.import_module(name[:-3].replace("/", ".").replace(".__init__", ""))
    assert module.__file__.startswith(archive), module.__file__
print("imported")
"""


def test_what_is_carried_needs_numpy_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(foreign.code_archive())
    refused = ("psutil", "pydantic", "torch", "transformers", "rich", "typer", "yaml", "tokenizers")
    command = [sys.executable, "-c", IMPORTS, str(tmp_path / "code.zip"), str(ROOT), *refused]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "imported\n", done.stderr


def test_what_is_carried_keeps_to_the_oldest_python() -> None:
    with zipfile.ZipFile(io.BytesIO(foreign.code_archive())) as archive:
        for name in archive.namelist():
            tree = ast.parse(archive.read(name), name, feature_version=foreign.OLDEST)
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            zips = [call for call in calls if getattr(call.func, "id", "") == "zip"]
            # `strict` came with Python 3.10.
            assert not [call for call in zips if call.keywords], name


def test_a_python_tells_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", foreign.PROBE], capture_output=True, text=True, check=True
    )
    found = foreign.read_probe(f"Welcome\n{done.stdout}", where="here", python="python3")
    assert found.version == sys.version_info[:3]
    assert set(found.packages) == set(foreign.MODULES)
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))


def _said(**changes: object) -> str:
    values = {"version": [3, 11, 2], "bits": 64, "machine": "aarch64", "libc": ["glibc", "2.36"]}
    more = {"implementation": "CPython", "packages": {}}
    return "@@python " + json.dumps({**values, **more, **changes})


def test_a_python_of_a_board_is_read() -> None:
    assert foreign.read_probe(_said(), where="pi", python="python3") == PI
    musl = foreign.read_probe(_said(libc=["", ""]), where="pi", python="python3")
    assert musl.glibc is None


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "pi has a 'python3' that does not answer"),
        (foreign.NO_PYTHON, "pi has no 'python3': install Python 3.9 or newer"),
        (_said(version=[3, 8, 1]), "python3 is CPython 3.8.1, and CPython 3.9 or newer is needed"),
        (_said(implementation="PyPy"), "python3 is PyPy 3.11.2, and CPython"),
        (_said(bits=32), "a 32-bit aarch64 Python cannot run what is timed.*install a 64-bit"),
        (_said(machine="riscv64"), "a 64-bit riscv64 Python cannot run"),
    ],
)
def test_pythons_that_cannot_run_the_worker_are_refused(output: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        foreign.read_probe(output, where="pi", python="python3")
    assert "\n" not in str(caught.value)


def test_a_runtime_that_is_there_is_used() -> None:
    held = {"onnxruntime": "1.20.0", "numpy": "2.0.0"}
    found = wheels.runtime("onnxruntime", Foreign(PI.version, "x86_64", 36, held), where="x")
    assert (found.version, found.wheels) == ("1.20.0", ())


def _cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[str]]:
    """Stands for pip: notes what it is asked for, and refuses pinned versions."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        requirements = command[command.index("-d") + 2 :]
        asked.append(command)
        if any("==" in word for word in requirements):
            error = "Looking in indexes\nERROR: No matching distribution found\n"
            return subprocess.CompletedProcess(command, 1, "", error)
        stage = Path(command[command.index("-d") + 1])
        for name in ("onnxruntime-1.9.0-cp39-none-any", "numpy-2.0.0-cp39-none-any"):
            with zipfile.ZipFile(stage / f"{name}.whl", "w") as wheel:
                wheel.writestr(f"{name}/file", "1234")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("EDGE_CACHE", str(folder))
    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_wheels_are_asked_for_by_platform_and_python_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _cache(monkeypatch, tmp_path)
    found = wheels.runtime("onnxruntime", PI, where="pi")
    # This version first; then any that there is for that Python.
    assert [command[-2].startswith("onnxruntime==") for command in asked] == [True, False]
    words = " ".join(asked[0])
    assert "--only-binary=:all:" in words and "--python-version 311" in words
    assert "--platform manylinux_2_36_aarch64" in words
    assert "--platform manylinux_2_17_aarch64" in words
    assert "manylinux_2_37" not in words and "x86_64" not in words
    assert found.version == "1.9.0"
    assert sorted(wheel.name.split("-")[0] for wheel in found.wheels) == ["numpy", "onnxruntime"]
    assert wheels.unpacked_bytes(found.wheels[0]) == 4
    assert wheels.runtime("onnxruntime", PI, where="pi") == found
    assert len(asked) == 2
    folders = wheels.unpack_wheels(found)
    assert folders == wheels.unpack_wheels(found)
    assert all(next(folder.rglob("file")).read_text() == "1234" for folder in folders)


def test_wheels_that_cannot_be_had_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cache(monkeypatch, tmp_path)
    none = subprocess.CompletedProcess([], 1, "", "ERROR: no network\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: none)
    words = r"pi: no ai-edge-litert for Python 3\.11 on aarch64 could be downloaded \(no network\)"
    with pytest.raises(EngineError, match=words):
        wheels.runtime("litert", PI, where="pi")
    assert not list(tmp_path.rglob("*.whl"))
    alpine = Foreign((3, 12, 0), "x86_64", None, {})
    with pytest.raises(EngineError, match="not glibc.*: install onnxruntime and numpy"):
        wheels.runtime("onnxruntime", alpine, where="alpine")


def test_engines_are_available_where_their_wheels_are() -> None:
    def find(engine: str) -> wheels.Runtime:
        if engine == "litert":
            raise EngineError("pi: no wheel")
        return wheels.Runtime("1.2.3")

    assert wheels.availability("onnxruntime", find) == Availability("1.2.3")
    assert wheels.availability("litert", find).reason == "pi: no wheel"
    assert not wheels.availability("pytorch", find).available
    assert foreign.choose_engine(("tflite-runtime", "litert")) == "litert"
    assert foreign.choose_engine(("coreml",)) == "coreml"


def test_a_worker_is_bound_to_its_cores() -> None:
    assert worker_command("py", None) == ["py", "-m", "benchmark.worker.worker"]
    python, flag, program = worker_command("py", (4, 5))
    assert (python, flag) == ("py", "-c")
    assert "sched_setaffinity(0, {4, 5})" in program
    compile(program, "program", "exec")


@pytest.mark.parametrize(
    "host",
    [None, "", "-oProxyCommand=true", "a b", "a;b", "$(id)", "a`b`", "u@-x", "-u@x", "a/b", "a\nb"],
)
def test_hosts_that_a_shell_or_ssh_would_misread_are_refused(host: str | None) -> None:
    with pytest.raises(ConfigError):
        check_host(host)


def test_usual_hosts_are_taken_as_they_are() -> None:
    for host in ("pi", "pi@raspberrypi.local", "10.0.0.7", "fe80::1%eth0", "user.name@my-board_2"):
        assert check_host(host) == host


def test_hosts_of_the_configuration_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "config").write_text(
        "Include more/*\nHost pi jetson  # boards\n  HostName 10.0.0.7\nHost *.lan !bad\n"
        'Host="quoted"\nMatch host x\nUser me\nHost unclosed"\n'
    )
    (folder / "more").mkdir()
    (folder / "more" / "a").write_text("Host laptop\n")
    assert configured_hosts(folder / "config") == ["laptop", "pi", "jetson", "quoted"]
    monkeypatch.setenv("HOME", str(tmp_path))
    found = SshDevice.discover(DeviceOptions())
    assert [one.spec for one in found] == ["ssh:laptop", "ssh:pi", "ssh:jetson", "ssh:quoted"]
    assert all(one.reason for one in found)
    (folder / "config").unlink()
    (none,) = SshDevice.discover(DeviceOptions())
    assert none.formats == () and none.reason is not None
    if shutil.which("ssh"):
        assert "names no host" in none.reason
