"""The user's programs of LiteRT and ONNX Runtime that time models on Android."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.devices.adb.elf import elf_abi
from edge.errors import ConfigError
from edge.storage import sha256

# What runs an engine's models, as its project calls it.
PROGRAMS = {"litert": "benchmark_model", "onnxruntime": "onnxruntime_perf_test"}


@dataclass(frozen=True)
class Tool:
    """A program of the user's. libraries: what lies beside it that it may need."""

    engine: str
    path: Path
    libraries: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """As a row names its version, which it does not tell itself."""
        return f"{PROGRAMS[self.engine]} {sha256(self.path)[:12]}"


def find_tools(folder: Path, abis: Sequence[str]) -> dict[str, Tool]:
    """Engine -> its tool in a folder, for a device that runs `abis`, the best first.

    A tool is called as its project calls it, or ends so: `android_aarch64_benchmark_model`.
    Raises ConfigError, one line, when there is none, or none for the device.
    """
    if not folder.is_dir():
        raise ConfigError(f"--tools {folder} is no folder: name the one with benchmark_model")
    libraries = tuple(sorted(path for path in folder.iterdir() if ".so" in path.name))
    found: dict[str, Tool] = {}
    wrong = []
    for engine, program in PROGRAMS.items():
        builds = {path: elf_abi(path) for path in sorted(folder.glob(f"*{program}"))}
        fitting = [path for path, abi in builds.items() if abi in abis]
        if fitting:
            best = min(fitting, key=lambda path: abis.index(builds[path]))
            found[engine] = Tool(engine, best, libraries)
        wrong += [f"{path.name} is for {abi}" for path, abi in builds.items() if abi not in abis]
    if not found and wrong:
        raise ConfigError(
            f"nothing in {folder} runs on the device, which is {abis[0]}: {', '.join(wrong)}; "
            f"get the builds for {abis[0]}"
        )
    if not found:
        names = " or ".join(PROGRAMS.values())
        raise ConfigError(f"there is no {names} in {folder}: see docs/android.md for both")
    return found
