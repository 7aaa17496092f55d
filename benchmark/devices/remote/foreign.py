"""The worker under another machine's Python: the probe of that Python, and the code archive.

A board, or an emulated system, needs Python 3.9 or newer and nothing of this project: the modules
that `benchmark.worker.worker` imports are sent as one zip archive, from which Python imports.
Packages of the runtimes are in `benchmark.devices.remote.wheels`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typing_extensions

from benchmark.devices.local import worker_environment
from edge.errors import ConfigError

OLDEST = (3, 9)
MACHINES = ("aarch64", "x86_64")
# Name for pip -> module to import.
MODULES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert",
    "numpy": "numpy",
    "tokenizers": "tokenizers",
}
# Engine -> the packages it needs there. Other engines need more modules than the archive holds.
ENGINES = {
    "onnxruntime": ("onnxruntime", "numpy"),
    "litert": ("ai-edge-litert", "numpy"),
}
TOKENIZER_PACKAGES = ("tokenizers",)
_ROOT = Path(__file__).resolve().parents[3]
_ARCHIVED = (
    "benchmark/devices/remote/counting.py",
    "benchmark/worker/memory.py",
    "benchmark/worker/profiling.py",
    "benchmark/worker/text_encoder.py",
    "benchmark/worker/worker.py",
    "edge/__init__.py",
    "edge/console.py",
    "edge/engines/__init__.py",
    "edge/engines/base.py",
    "edge/engines/litert.py",
    "edge/engines/onnxruntime.py",
    "edge/errors.py",
    "edge/process/__init__.py",
    "edge/process/link.py",
    "edge/process/wire.py",
    "edge/registry.py",
)
_MARK = "@@python "
# Printed by the shell if there is no Python.
NO_PYTHON = "@@no-python"
# Runs under any Python, however old, to report its version.
PROBE = """
import json, platform, struct, sys
found = {}
try:
    from importlib.metadata import distributions
    from importlib.util import find_spec
except ImportError:
    distributions = None
if distributions:
    held = dict((d.metadata["Name"] or "", d.version) for d in distributions())
    for name, module in NAMES.items():
        if find_spec(module):
            alike = [v for n, v in sorted(held.items()) if n.replace("_", "-").startswith(name)]
            found[name] = held.get(name) or (alike or ["unknown"])[0]
print(MARK + json.dumps({
    "version": list(sys.version_info[:3]), "bits": 8 * struct.calcsize("P"),
    "machine": platform.machine(), "implementation": platform.python_implementation(),
    "libc": platform.libc_ver(), "packages": found}))
""".replace("MARK", repr(_MARK)).replace("NAMES", repr(MODULES))


@dataclass(frozen=True)
class Foreign:
    """A Python on another machine.

    glibc: minor version of the C library, 2.N. packages: versions of those of MODULES that it can
    import.
    """

    version: tuple[int, int, int]
    machine: str
    glibc: int | None
    packages: Mapping[str, str]

    @property
    def versions(self) -> dict[str, str]:
        """Versions for a row."""
        return {"python": ".".join(map(str, self.version)), **self.packages}


def read_probe(output: str, *, where: str, python: str) -> Foreign:
    """Parse the output of PROBE under `python` on machine `where`.

    Raises ConfigError, one line, for a Python or a machine that the worker cannot run on.
    """
    lines = output.splitlines()
    line = next((line for line in lines if line.startswith(_MARK)), None)
    if line is None:
        missing = NO_PYTHON in lines
        fault = f"has no '{python}'" if missing else f"has a '{python}' that does not answer"
        raise ConfigError(
            f"{where} {fault}: install Python {OLDEST[0]}.{OLDEST[1]} or newer there, or name "
            "another with --remote-python"
        )
    report = json.loads(line[len(_MARK) :])
    version, machine = tuple(report["version"]), report["machine"]
    title = f"{where}: {python} is {report['implementation']} {'.'.join(map(str, version))}"
    if version[:2] < OLDEST or report["implementation"] != "CPython":
        raise ConfigError(
            f"{title}, and CPython {OLDEST[0]}.{OLDEST[1]} or newer is needed: install it there, "
            "or name another with --remote-python"
        )
    if machine not in MACHINES or report["bits"] != 64:
        raise ConfigError(
            f"{where}: a {report['bits']}-bit {machine} Python cannot run what is timed, only "
            f"64-bit ones on {' and '.join(MACHINES)}: install a 64-bit system there"
        )
    library, _, minor = report["libc"][1].partition(".")
    glibc = int(minor) if report["libc"][0] == "glibc" and library == "2" else None
    return Foreign(version, machine, glibc, report["packages"])


def code_archive() -> bytes:
    """Return a zip file with the worker and its imports, from which Python imports."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # Empty ones: this project's import packages that a board does not have.
        for package in ("", "/devices", "/devices/remote", "/worker"):
            archive.writestr(f"benchmark{package}/__init__.py", "")
        for name in _ARCHIVED:
            archive.writestr(name, (_ROOT / name).read_bytes())
        archive.writestr("typing_extensions.py", Path(typing_extensions.__file__).read_bytes())
    return buffer.getvalue()


def choose_engine(runtimes: Sequence[str]) -> str:
    """Return the first of an artifact's runtimes in ENGINES, else the main one."""
    return next((name for name in runtimes if name in ENGINES), runtimes[0])


def worker_variables(threads: int, path: Sequence[str], temporary: str) -> dict[str, str]:
    """Return the worker's environment on another machine.

    path: module search path. temporary: a folder that is deleted with the worker.
    """
    return {
        **worker_environment(threads, {}),
        "PYTHONPATH": ":".join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        # So that files of libraries are deleted with it.
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
    }
