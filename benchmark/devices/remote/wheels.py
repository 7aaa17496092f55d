"""Wheels of runtimes for another machine's Python, downloaded once into the cache."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.devices.remote.foreign import ENGINES, TOKENIZER_PACKAGES, Foreign
from edge.console import say, step
from edge.engines.base import Availability
from edge.errors import EngineError
from edge.storage import cache_folder, made_once, staged_folder

_TIMEOUT_S = 900.0
# The oldest glibc of manylinux wheels in use, 2.N.
_OLDEST_GLIBC = 17


@dataclass(frozen=True)
class Runtime:
    """The packages of an engine on another machine.

    version: the engine's. wheels: to be unpacked there, each into its own folder on the module
    search path; empty if its Python has all packages.
    """

    version: str
    wheels: tuple[Path, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the wheels, by package."""
        return {_name(wheel): _version(wheel) for wheel in self.wheels}


def unpacked_bytes(wheel: Path) -> int:
    """Return the size of a wheel's content."""
    with zipfile.ZipFile(wheel) as archive:
        return sum(info.file_size for info in archive.infolist())


def availability(engine: str, find: Callable[[str], Runtime]) -> Availability:
    """Return the availability of an engine there; find: raises EngineError without its wheels."""
    if engine not in ENGINES:
        return Availability(
            None,
            f"{engine} is not carried to other machines",
            f"there {' and '.join(ENGINES)} can be used",
        )
    try:
        return Availability(find(engine).version)
    except EngineError as error:
        return Availability(None, str(error), "or time other formats with --format")


def unpack_wheels(runtime: Runtime) -> list[Path]:
    """Unpack the wheels into the cache; return their folders."""
    folders = []
    for wheel in runtime.wheels:
        folder = cache_folder() / "wheels" / "unpacked" / wheel.stem
        unpack = functools.partial(_unpack, wheel, folder)
        folders.append(made_once(folder, unpack, is_whole=Path.is_dir))
    return folders


def _unpack(wheel: Path, folder: Path) -> None:
    with (
        staged_folder(folder, replaces=lambda _: True) as stage,
        zipfile.ZipFile(wheel) as archive,
    ):
        archive.extractall(stage)


def runtime(engine: str, foreign: Foreign, *, where: str) -> Runtime:
    """Return the packages of an engine there, downloaded if necessary.

    Raises EngineError, one line, if there are no wheels for that Python.
    """
    return _runtime(ENGINES[engine], foreign, where)


def tokenizer_runtime(foreign: Foreign, *, where: str) -> Runtime:
    """Return the packages of tokenization there; raises EngineError, one line, without wheels."""
    return _runtime(TOKENIZER_PACKAGES, foreign, where)


def _runtime(needs: Sequence[str], foreign: Foreign, where: str) -> Runtime:
    main = needs[0]
    if all(package in foreign.packages for package in needs):
        runtime = Runtime(foreign.packages[main])
    else:
        # All packages, not only missing ones: their versions have to be compatible.
        wheels = _wheels(needs, foreign, where)
        runtime = Runtime(next(_version(w) for w in wheels if _name(w) == main), wheels)
    _compare(main, runtime.version, where)
    return runtime


@functools.cache
def _compare(package: str, version: str, where: str) -> None:
    """Report a version that differs from this machine's, in which artifacts were verified."""
    local_version = _local_version(package)
    if local_version not in (None, version):
        say(f"{where}: {package} {version} runs there, {local_version} here")


def _wheels(needs: Sequence[str], foreign: Foreign, where: str) -> tuple[Path, ...]:
    if foreign.glibc is None:
        raise EngineError(
            f"{where}: its C library is not glibc, which wheels are made for: install "
            f"{' and '.join(needs)} for its Python there"
        )
    tag = f"cp{foreign.version[0]}{foreign.version[1]}-{foreign.machine}-glibc2.{foreign.glibc}"
    local_version = _local_version(needs[0])
    # The version on this machine, if there is a wheel of it for that Python.
    attempts = (
        [needs] if local_version is None else [(f"{needs[0]}=={local_version}", *needs[1:]), needs]
    )
    folder = cache_folder() / "wheels" / f"{needs[0]}-{local_version or 'any'}-{tag}"

    def download() -> None:
        with step(f"downloading {' and '.join(needs)} for {tag}"):
            _download_one(attempts, foreign, folder, where)

    made_once(folder, download, is_whole=Path.is_dir)
    return tuple(sorted(folder.glob("*.whl")))


def _download_one(
    attempts: Sequence[Sequence[str]], foreign: Foreign, folder: Path, where: str
) -> None:
    """Download the first of several lists of requirements that has wheels."""
    for number, requirements in enumerate(attempts, start=1):
        try:
            _download(requirements, foreign, folder)
            return
        except EngineError as error:
            if number == len(attempts):
                python = f"Python {foreign.version[0]}.{foreign.version[1]}"
                raise EngineError(
                    f"{where}: no {requirements[0]} for {python} on {foreign.machine} could be "
                    f"downloaded ({error}): install it for its Python there"
                ) from None


def _download(requirements: Sequence[str], foreign: Foreign, folder: Path) -> None:
    """Download wheels into a folder; raises EngineError with pip's message, without the folder."""
    with staged_folder(folder, replaces=lambda _: True) as stage:
        command = [sys.executable, "-m", "pip", "download", *_options(foreign), "-d", str(stage)]
        try:
            done = subprocess.run(
                [*command, *requirements],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"pip took longer than {_TIMEOUT_S:.0f} s") from None
        if done.returncode:
            raise EngineError(_last_error(done.stderr))


def _options(foreign: Foreign) -> list[str]:
    assert foreign.glibc is not None
    python = f"{foreign.version[0]}{foreign.version[1]}"
    tags = [f"manylinux_2_{n}" for n in range(foreign.glibc, _OLDEST_GLIBC - 1, -1)]
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    options += ["--implementation", "cp", "--python-version", python]
    for abi in (f"cp{python}", "abi3", "none"):
        options += ["--abi", abi]
    for tag in (*tags, "manylinux2014"):
        options += ["--platform", f"{tag}_{foreign.machine}"]
    return options


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].removeprefix("ERROR: ")[:200] if errors else "pip failed"


def _local_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _name(wheel: Path) -> str:
    return re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]
