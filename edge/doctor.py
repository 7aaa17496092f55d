"""Diagnosis of this machine: working converters, engines and devices, and how to add the others.

The diagnosis must be quick and must not fail because a package is broken: large packages are
looked up but not imported, and any exception of a small one becomes a line of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from edge.config import Config
from edge.console import hush
from edge.engines import ENGINES, get_engine
from edge.formats import FORMATS
from edge.process import processor

DISTRIBUTION = "edge-encoders"
_SETUP = "make setup"
# Distribution name -> module name, where they differ.
_MODULES = {
    "ai-edge-litert": "ai_edge_litert",
    "litert-torch": "litert_torch",
    "litert-converter": "litert_converter",
    "huggingface-hub": "huggingface_hub",
    "pyyaml": "yaml",
    "typing-extensions": "typing_extensions",
}
# Packages needed to convert to each format.
CONVERTERS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "tflite": ("litert-torch", "litert-converter", "ai-edge-litert"),
    "coreml": ("coremltools",),
}
_MAIN_PATH = ("torch", "transformers", "accelerate", "datasets", "safetensors", "tokenizers")
# The package of each engine, except engines in a separate environment.
_ENGINE_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "coreml": "coremltools",
    "mil-interpreter": "coremltools",
    "pytorch": "torch",
}
# Packages that import fast enough for a check; the others take seconds each.
_IMPORT_CHECKED = {
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
}


class PackageCheck(Config):
    """One Python package. status "differs": installed, in a version that was not tested."""

    package: str
    status: Literal["ok", "differs", "broken", "missing"]
    version: str | None = None
    tested: str | None = None
    reason: str | None = None
    remedy: str | None = None

    @property
    def usable(self) -> bool:
        return self.status in {"ok", "differs"}


class ToolCheck(Config):
    """A converter (by format), an engine or a device."""

    kind: Literal["converter", "engine", "device"]
    name: str
    format: str | None
    works: bool
    version: str | None = None
    reason: str | None = None
    remedy: str | None = None


class Machine(Config):
    """Python and the processor. int8_features: instructions for products of 8-bit integers."""

    python: str
    executable: str
    system: str
    architecture: str
    processor: str
    cores: int
    int8_features: tuple[str, ...]
    torch_build: str | None


class Diagnosis(Config):
    """The result of `edge doctor`. ok: distill, convert and verify work for every format."""

    ok: bool
    machine: Machine
    packages: tuple[PackageCheck, ...]
    tools: tuple[ToolCheck, ...]
    warnings: tuple[str, ...]


def diagnose(devices: Callable[[], Iterable[ToolCheck]] = tuple) -> Diagnosis:
    """Check this machine; missing or broken packages raise nothing.

    devices: finds devices; the benchmark provides it.
    """
    requirements = _requirements()
    names = dict.fromkeys([*_MAIN_PATH, *(n for group in CONVERTERS.values() for n in group)])
    names.update(dict.fromkeys(requirements))
    packages = {name: _package(name, requirements.get(name)) for name in names}
    tools = (
        *(_converter(name, packages) for name in FORMATS),
        *(_engine(name, packages) for name in ENGINES),
        *_devices(devices),
    )
    machine = _machine()
    return Diagnosis(
        ok=all(packages[name].usable for name in _MAIN_PATH) and _formats_work(tools),
        machine=machine,
        packages=tuple(packages.values()),
        tools=tools,
        warnings=tuple(_warnings(machine, packages, requirements)),
    )


def check_converter(format_name: str) -> ToolCheck:
    """Return the check of a format's converter."""
    requirements = _requirements()
    names = CONVERTERS[format_name]
    packages = {name: _package(name, requirements.get(name)) for name in names}
    return _converter(format_name, packages)


def _formats_work(tools: tuple[ToolCheck, ...]) -> bool:
    working = {(tool.kind, tool.format) for tool in tools if tool.works}
    return all((kind, name) in working for name in FORMATS for kind in ("converter", "engine"))


def _requirements() -> dict[str, Any]:
    """Return the tested version range of each required package; empty if edge is not installed."""
    try:
        from packaging.requirements import Requirement

        lines = importlib.metadata.requires(DISTRIBUTION) or []
        parsed = [Requirement(line) for line in lines]
        applicable = [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
        return {r.name.lower(): r.specifier for r in applicable}
    except Exception:  # not installed, or metadata that cannot be read: nothing to compare with
        return {}


def _package(name: str, tested: Any) -> PackageCheck:
    install = f"pip install '{name}{tested or ''}'"
    tested_range = str(tested) if tested else None
    try:
        module = _MODULES.get(name, name.replace("-", "_"))
        if importlib.util.find_spec(module) is None:
            return PackageCheck(
                package=name,
                status="missing",
                tested=tested_range,
                remedy=f"{_SETUP}, or {install}",
            )
        version = importlib.metadata.version(name)
        if name in _IMPORT_CHECKED:
            with hush():
                importlib.import_module(_IMPORT_CHECKED[name])
    except Exception as error:
        return PackageCheck(
            package=name,
            status="broken",
            tested=tested_range,
            reason=_first_line(error),
            remedy=f"pip install --force-reinstall '{name}{tested or ''}'",
        )
    if tested is not None and not tested.contains(version, prereleases=True):
        return PackageCheck(
            package=name, status="differs", version=version, tested=tested_range, remedy=install
        )
    return PackageCheck(package=name, status="ok", version=version, tested=tested_range)


def _converter(format_name: str, packages: dict[str, PackageCheck]) -> ToolCheck:
    checks = [packages[name] for name in CONVERTERS[format_name]]
    faults = [check for check in checks if not check.usable]
    reasons = [f"{check.package} {_fault(check)}" for check in faults]
    remedy = "; ".join(check.remedy for check in faults if check.remedy) or None
    if faults and format_name != "onnx" and _is_linux_arm():
        remedy = "convert on x86-64 or on a Mac: there is no package for Linux on ARM"
    return ToolCheck(
        kind="converter",
        name=format_name,
        format=format_name,
        works=not faults,
        version=", ".join(f"{c.package} {c.version}" for c in checks if c.version) or None,
        reason="; ".join(reasons) or None,
        remedy=remedy,
    )


def _fault(check: PackageCheck) -> str:
    return "is not installed" if check.status == "missing" else f"is broken: {check.reason}"


def _engine(name: str, packages: dict[str, PackageCheck]) -> ToolCheck:
    format_name, remedy = None, _SETUP
    version = reason = None
    try:
        engine = get_engine(name)
        format_name = engine.format
        availability = engine.availability()
        version, reason, remedy = (
            availability.version,
            availability.reason,
            availability.remedy or _SETUP,
        )
        check = packages.get(_ENGINE_PACKAGES.get(name, ""))
        if reason is None and check is not None and not check.usable:
            reason, remedy = f"{check.package} {_fault(check)}", check.remedy or _SETUP
    except Exception as error:  # whatever a broken package raises is what the user has to know
        reason = _first_line(error)
    return ToolCheck(
        kind="engine",
        name=name,
        format=format_name,
        works=reason is None,
        version=version,
        reason=reason,
        remedy=None if reason is None else remedy,
    )


def _devices(find: Callable[[], Iterable[ToolCheck]]) -> tuple[ToolCheck, ...]:
    try:
        return tuple(find())
    except Exception as error:  # a package that devices need is missing or broken
        reason = _first_line(error)
        return (
            ToolCheck(
                kind="device", name="all", format=None, works=False, reason=reason, remedy=_SETUP
            ),
        )


def _machine() -> Machine:
    return Machine(
        python=platform.python_version(),
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=processor.name() or platform.machine(),
        cores=processor.usable_cores(),
        int8_features=processor.int8_features(),
        torch_build=_torch_build(),
    )


def _torch_build() -> str | None:
    """Return torch's version and CUDA build from its version file, without importing torch."""
    try:
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except (OSError, ValueError, ImportError):
        return None
    version = re.search(r"^__version__ = '(.+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b.*= '(.+)'", text, re.MULTILINE)
    build = f"CUDA {cuda.group(1)}" if cuda else "no CUDA"
    return f"{version.group(1)} ({build})" if version else None


def _warnings(
    machine: Machine, packages: dict[str, PackageCheck], requirements: dict[str, Any]
) -> list[str]:
    warnings = [
        f"{check.package} {check.version} was not tested ({check.tested} was): {check.remedy}"
        for check in packages.values()
        if check.status == "differs"
    ]
    if not machine.int8_features:
        warnings.append(
            "this processor has no instructions for int8 products: int8 is slower here than on "
            "newer ones, and its results can differ from theirs"
        )
    if not requirements:
        warnings.append(f"{DISTRIBUTION} is not installed, so versions were not compared: {_SETUP}")
    return warnings


def _is_linux_arm() -> bool:
    return sys.platform == "linux" and platform.machine() in {"aarch64", "arm64"}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
