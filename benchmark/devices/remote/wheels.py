"""Wheels of runtimes for another machine's Python, downloaded here once and kept in the cache."""

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

from benchmark.devices.remote.foreign import ENGINES, READING, Foreign
from edge.console import say, step
from edge.engines.base import Availability
from edge.errors import EngineError
from edge.storage import cache_folder, made_once, staged_folder

_TIMEOUT_S = 900.0
# The oldest C library that any wheel of today is made for, 2.N.
_OLDEST_GLIBC = 17


@dataclass(frozen=True)
class Runtime:
    """What runs an engine there.

    version: the engine's. wheels: to be unpacked, each into a folder of its own on its path; none
    where its Python has all that is needed.
    """

    version: str
    wheels: tuple[Path, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """Of what the wheels hold, by package."""
        return {_name(wheel): _version(wheel) for wheel in self.wheels}


def unpacked_bytes(wheel: Path) -> int:
    """Size of what is in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sum(info.file_size for info in archive.infolist())


def availability(engine: str, find: Callable[[str], Runtime]) -> Availability:
    """Whether an engine of ENGINES can be had there; find: raises EngineError where it cannot."""
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


def unpacked(runtime: Runtime) -> list[Path]:
    """The folders of its wheels' contents on this machine, kept in the cache."""
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
    """What an engine needs there, downloaded if need be.

    Raises EngineError, one line, when its wheels cannot be had for that Python.
    """
    return _runtime(ENGINES[engine], foreign, where)


def reader(foreign: Foreign, *, where: str) -> Runtime:
    """What tokenising needs there; raises EngineError, one line, when that cannot be had."""
    return _runtime(READING, foreign, where)


def _runtime(needs: Sequence[str], foreign: Foreign, where: str) -> Runtime:
    main = needs[0]
    if all(package in foreign.packages for package in needs):
        found = Runtime(foreign.packages[main])
    else:
        # All of them, not only what is missing: they fit one another.
        wheels = _wheels(needs, foreign, where)
        found = Runtime(next(_version(w) for w in wheels if _name(w) == main), wheels)
    _compare(main, found.version, where)
    return found


@functools.cache
def _compare(package: str, version: str, where: str) -> None:
    """Say when it is not the version that artifacts were verified in here."""
    own = _own(package)
    if own not in (None, version):
        say(f"{where}: {package} {version} runs there, {own} here")


def _wheels(needs: Sequence[str], foreign: Foreign, where: str) -> tuple[Path, ...]:
    if foreign.glibc is None:
        raise EngineError(
            f"{where}: its C library is not glibc, which wheels are made for: install "
            f"{' and '.join(needs)} for its Python there"
        )
    tag = f"cp{foreign.version[0]}{foreign.version[1]}-{foreign.machine}-glibc2.{foreign.glibc}"
    own = _own(needs[0])
    # The version that runs here, if that Python can have it.
    attempts = [needs] if own is None else [(f"{needs[0]}=={own}", *needs[1:]), needs]
    folder = cache_folder() / "wheels" / f"{needs[0]}-{own or 'any'}-{tag}"

    def download() -> None:
        with step(f"downloading {' and '.join(needs)} for {tag}"):
            _download_one(attempts, foreign, folder, where)

    made_once(folder, download, is_whole=Path.is_dir)
    return tuple(sorted(folder.glob("*.whl")))


def _download_one(
    attempts: Sequence[Sequence[str]], foreign: Foreign, folder: Path, where: str
) -> None:
    """The first of several lists of requirements that can be had."""
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
    """Fill a folder with wheels; raises EngineError, what pip says, and leaves no folder."""
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


def _own(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _name(wheel: Path) -> str:
    return re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]
