"""`edge doctor`: what works here, told without failing over what is broken."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmark.devices import DEVICES
from edge import doctor
from edge.cli.doctor import devices
from edge.cli.doctor import doctor as command
from edge.doctor import Diagnosis, PackageCheck, ToolCheck, diagnose
from edge.engines import ENGINES
from edge.formats import FORMATS
from edge.process import processor

REMEDY = "make setup, or pip install"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make modules look as if they were not installed."""
    found = importlib.util.find_spec

    def hide(*modules: str) -> None:
        def find(name: str, package: str | None = None) -> Any:
            return None if name.partition(".")[0] in modules else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    return hide


@pytest.fixture
def break_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a package before the installed one whose import raises."""

    def replace(module: str, error: str) -> None:
        (tmp_path / f"{module}.py").write_text(f"raise {error}\n")
        for name in [n for n in sys.modules if n.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)

    return replace


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that the project is installed with these requirements."""

    def require(*lines: str) -> None:
        monkeypatch.setattr(
            importlib.metadata,
            "requires",
            lambda name: list(lines) if name == doctor.DISTRIBUTION else None,
        )

    return require


def _package(found: Diagnosis, name: str) -> PackageCheck:
    return next(check for check in found.packages if check.package == name)


def _tool(found: Diagnosis, kind: str, name: str) -> ToolCheck:
    return next(tool for tool in found.tools if (tool.kind, tool.name) == (kind, name))


def test_the_main_path_works_here() -> None:
    found = diagnose(devices)
    assert found.ok, [tool for tool in found.tools if not tool.works]
    assert {t.name for t in found.tools if t.kind == "converter"} == set(FORMATS)
    assert {t.name for t in found.tools if t.kind == "engine"} == set(ENGINES)
    assert _tool(found, "engine", "onnxruntime").version == importlib.metadata.version(
        "onnxruntime"
    )
    assert _tool(found, "device", "local").works
    assert found.machine.cores >= 1
    assert str(found.machine.torch_build).startswith(importlib.metadata.version("torch"))


def test_what_does_not_work_has_a_reason_and_a_remedy() -> None:
    for tool in diagnose(devices).tools:
        assert tool.works == (tool.reason is None)
        assert tool.works == (tool.remedy is None)


def test_devices_are_those_of_the_registry() -> None:
    kinds = {t.name.partition(":")[0] for t in diagnose(devices).tools if t.kind == "device"}
    assert kinds == set(DEVICES)


def test_a_kind_of_device_that_cannot_even_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICES, "ssh", "benchmark.devices.absent:SshDevice")
    tool = _tool(diagnose(devices), "device", "ssh")
    assert not tool.works and "while looking for it" in str(tool.reason)
    assert _tool(diagnose(devices), "device", "local").works


def test_devices_that_cannot_be_looked_for_are_a_line() -> None:
    def broken() -> list[ToolCheck]:
        raise ImportError("no module named psutil")

    tool = _tool(diagnose(broken), "device", "all")
    assert (tool.works, tool.reason) == (False, "ImportError: no module named psutil")


def test_a_missing_package_names_the_command_that_adds_it(without: Any) -> None:
    without("onnxscript")
    found = diagnose()
    assert not found.ok
    assert _package(found, "onnxscript").status == "missing"
    converter = _tool(found, "converter", "onnx")
    assert not converter.works
    assert converter.reason == "onnxscript is not installed"
    assert str(converter.remedy).startswith(f"{REMEDY} 'onnxscript")
    assert _tool(found, "converter", "tflite").works


def test_a_missing_engine_leaves_its_format_without_one(without: Any) -> None:
    without("ai_edge_litert")
    found = diagnose()
    engine = _tool(found, "engine", "litert")
    assert (engine.works, engine.reason) == (False, "ai-edge-litert is not installed")
    assert "pip install" in str(engine.remedy)
    assert not found.ok


def test_the_interpreter_is_an_engine_for_core_ml(without: Any) -> None:
    without("coremltools")
    found = diagnose()
    assert not _tool(found, "engine", "mil-interpreter").works
    assert not _tool(found, "converter", "coreml").works
    assert not found.ok


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            "ImportError('libgomp.so.1: cannot open\\nsecond line')",
            "ImportError: libgomp.so.1: cannot",
        ),
        ("RuntimeError('compiled for another numpy')", "RuntimeError: compiled for another numpy"),
        ("SyntaxError('half a file')", "SyntaxError: half a file"),
    ],
)
def test_a_broken_package_is_a_line_of_the_report(
    break_package: Any, error: str, shown: str
) -> None:
    break_package("onnxruntime", error)
    found = diagnose()
    check = _package(found, "onnxruntime")
    assert check.status == "broken"
    assert shown in str(check.reason)
    assert "\n" not in str(check.reason)
    assert "pip install --force-reinstall 'onnxruntime" in str(check.remedy)
    engine = _tool(found, "engine", "onnxruntime")
    assert not engine.works
    assert shown in str(engine.reason)
    assert not found.ok


def test_an_engine_that_cannot_even_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "litert", "edge.engines.no_such_module:Engine")
    engine = _tool(diagnose(), "engine", "litert")
    assert not engine.works
    assert str(engine.reason).startswith("ModuleNotFoundError")


def test_an_untested_version_is_a_warning_and_not_a_failure(requirements: Any) -> None:
    version = importlib.metadata.version("onnx")
    requirements("onnx==0.1", f"coremltools=={importlib.metadata.version('coremltools')}")
    found = diagnose()
    assert found.ok
    assert _package(found, "onnx").status == "differs"
    assert _package(found, "coremltools").status == "ok"
    assert f"onnx {version} was not tested (==0.1 was): pip install 'onnx==0.1'" in found.warnings


def test_only_what_this_platform_needs_is_compared(requirements: Any) -> None:
    requirements(
        "no-such-package==1; sys_platform == 'nowhere'",
        "no-such-tool==1; extra == 'dev'",
        "no-such-library==1",
    )
    names = {check.package for check in diagnose().packages}
    assert "no-such-library" in names
    assert not names & {"no-such-package", "no-such-tool"}


def test_without_an_installation_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-distribution")
    found = diagnose()
    assert found.ok
    assert not [check for check in found.packages if check.status == "differs"]
    assert "versions were not compared" in found.warnings[-1]


def test_linux_on_arm_is_told_where_to_convert(
    without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("coremltools")
    monkeypatch.setattr(doctor, "_is_linux_arm", lambda: True)
    converter = _tool(diagnose(), "converter", "coreml")
    assert converter.remedy == (
        "convert on x86-64 or on a Mac: there is no package for Linux on ARM"
    )


def test_a_processor_without_int8_instructions_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "int8_features", lambda: ())
    assert any("no instructions for int8" in warning for warning in diagnose().warnings)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "model name\t: X\nflags\t\t: fpu avx2 avx512_vnni avx_vnni\n",
            ("avx_vnni", "avx512_vnni"),
        ),
        ("Hardware : Y\nFeatures\t: fp asimd asimddp i8mm\n", ("asimddp", "i8mm")),
        ("flags : fpu sse4_2 avx2\n", ()),
        ("", ()),
    ],
)
def test_int8_instructions_are_read_from_cpuinfo(
    monkeypatch: pytest.MonkeyPatch, text: str, features: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **options: text)
    assert processor.int8_features() == features


def test_the_command_prints_json_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    command(json=True)
    assert Diagnosis.model_validate(json.loads(capsys.readouterr().out)).ok


def test_the_command_fails_when_something_needed_is_missing(
    without: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    without("onnxscript")
    with pytest.raises(typer.Exit) as stop:
        command(json=False)
    assert stop.value.exit_code == 1
    out = capsys.readouterr().out
    assert "onnxscript is not installed" in out
    assert "Something is missing" in out
