"""The user's programs of LiteRT and ONNX Runtime that time models on Android."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.devices.adb.elf import elf_abi
from edge.errors import ConfigError
from edge.storage import sha256

# Engine -> its project's benchmark program.
PROGRAMS = {"litert": "benchmark_model", "onnxruntime": "onnxruntime_perf_test"}


@dataclass(frozen=True)
class Tool:
    """A benchmark program of the user. libraries: shared libraries beside it."""

    engine: str
    path: Path
    libraries: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """Version for a row: name and checksum, since the program prints no version."""
        return f"{PROGRAMS[self.engine]} {sha256(self.path)[:12]}"


def find_tools(folder: Path, abis: Sequence[str]) -> dict[str, Tool]:
    """Return engine -> tool of a folder, for a device that runs `abis`, the preferred one first.

    A tool's name is the program's, or ends with it: `android_aarch64_benchmark_model`.
    Raises ConfigError, one line, if there is none, or none for the device.
    """
    if not folder.is_dir():
        raise ConfigError(f"--tools {folder} is no folder: name the one with benchmark_model")
    libraries = tuple(sorted(path for path in folder.iterdir() if ".so" in path.name))
    tools: dict[str, Tool] = {}
    wrong = []
    for engine, program in PROGRAMS.items():
        builds = {path: elf_abi(path) for path in sorted(folder.glob(f"*{program}"))}
        fitting = [path for path, abi in builds.items() if abi in abis]
        if fitting:
            best = min(fitting, key=lambda path: abis.index(builds[path]))
            tools[engine] = Tool(engine, best, libraries)
        wrong += [f"{path.name} is for {abi}" for path, abi in builds.items() if abi not in abis]
    if not tools and wrong:
        raise ConfigError(
            f"nothing in {folder} runs on the device, which is {abis[0]}: {', '.join(wrong)}; "
            f"get the builds for {abis[0]}"
        )
    if not tools:
        names = " or ".join(PROGRAMS.values())
        raise ConfigError(f"there is no {names} in {folder}: see docs/android.md for both")
    return tools
