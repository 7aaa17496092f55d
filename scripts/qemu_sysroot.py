"""Make the sysroot of `--device qemu:CPU`: QEMU's user mode and a Python for Arm.

    .venv/bin/python scripts/qemu_sysroot.py [--counting] [--output DIR]

Everything comes from Debian's packages and is unpacked into one folder, by default where the
device looks for it; nothing is installed. Needs apt-get, dpkg-deb and Debian's keyring.

Without --counting QEMU is Debian 13's (Debian 12's crashes on these runtimes), enough to verify
outputs. Debian builds it without plugins, so with --counting the same source is built here with
plugins, for instruction counts: that needs gcc, PyPI, and 5 to 15 minutes once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmark.config import DeviceOptions  # noqa: E402
from benchmark.devices.remote.foreign import ENGINES  # noqa: E402
from benchmark.devices.remote.qemu import (  # noqa: E402
    COUNTER,
    GUEST,
    HOST,
    INFO,
    PROGRAM,
    QemuDevice,
    default_sysroot,
)
from edge.console import say, step  # noqa: E402
from edge.errors import EdgeError  # noqa: E402
from edge.storage import staged_folder  # noqa: E402

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
EMULATOR_SUITE, GUEST_SUITE = "trixie", "bookworm"
GUEST_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libbz2-1.0", "liblzma5"),
    *("libffi8", "libcrypt1", "libuuid1", "libssl3"),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
)
# Build dependencies of QEMU beside a compiler and the C library's headers.
BUILD_PACKAGES = (
    *("libglib2.0-dev", "libglib2.0-0", "libpcre2-dev", "libpcre2-8-0"),
    *("zlib1g-dev", "zlib1g", "libffi-dev"),
)
BUILD_LIBRARIES = ("libglib-2.0.so.0", "libgmodule-2.0.so.0", "libpcre2-8.so.0", "libz.so.1")
BUILD_TOOLS = ("meson", "ninja", "pycotap", "setuptools", "distlib")
CONFIGURE = (
    *("--target-list=aarch64-linux-user", "--enable-plugins", "--without-default-features"),
    *("--disable-system", "--disable-tools", "--disable-docs", "--disable-install-blobs"),
    "--disable-werror",
)


def main() -> int:
    """Make the sysroot."""
    parser = argparse.ArgumentParser(description="Make the folder for --device qemu:CPU.")
    parser.add_argument("--output", type=Path, default=default_sysroot())
    parser.add_argument("--counting", action="store_true", help="build QEMU with a counter")
    options = parser.parse_args()
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    missing += [] if KEYRING.exists() else [f"{KEYRING} (package debian-archive-keyring)"]
    missing += ["gcc"] if options.counting and shutil.which("gcc") is None else []
    if missing:
        print(f"qemu_sysroot: needs {', '.join(missing)}", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="edge-qemu-") as work,
        staged_folder(options.output, replaces=lambda folder: (folder / INFO).exists()) as stage,
    ):
        make(stage, Path(work), counting=options.counting)
    # Download the runtimes, so that benchmarks and tests need no network.
    settings = DeviceOptions(sysroot=options.output)
    with QemuDevice("max", settings) as device:
        for engine in ENGINES:
            availability = device.availability(engine)
            say(f"{engine}: {availability.version or availability.reason}")
    say(f"{options.output}: {'with' if options.counting else 'without'} instruction counts")
    return 0


def make(stage: Path, work: Path, *, counting: bool) -> None:
    """Fill the folder `stage`."""
    debian = Debian(work / "apt")
    with step("Python for Arm, from Debian's packages"):
        debian.unpack([f"{p}:arm64/{GUEST_SUITE}" for p in GUEST_PACKAGES], stage / GUEST)
    (stage / PROGRAM).parent.mkdir()
    (stage / HOST).mkdir()
    if counting:
        with step("QEMU with a counter, built"):
            build(debian, work, stage)
    else:
        with step("QEMU, from Debian's package"):
            debian.unpack([f"qemu-user/{EMULATOR_SUITE}"], work / "qemu")
            shutil.copy2(work / "qemu/usr/bin/qemu-aarch64", stage / PROGRAM)
    output = run([stage / PROGRAM, "--version"], env={"LD_LIBRARY_PATH": str(stage / HOST)})
    version = output.split("version")[1].split()[0]
    (stage / INFO).write_text(json.dumps({"qemu": version, "counting": counting}) + "\n")


class Debian:
    """Debian's archive, through an apt with all its folders below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
            (root / folder).mkdir(parents=True)
        (root / "status").touch()
        architecture = run(["dpkg", "--print-architecture"]).strip()
        signed = f"signed-by={KEYRING}"
        both = ",".join(sorted({architecture, "arm64"}))
        sources = [
            f"deb [arch={architecture} {signed}] {MIRROR} {EMULATOR_SUITE} main",
            f"deb-src [{signed}] {MIRROR} {EMULATOR_SUITE} main",
            f"deb [arch={both} {signed}] {MIRROR} {GUEST_SUITE} main",
        ]
        (root / "etc/sources.list").write_text("\n".join(sources) + "\n")
        settings = {
            "Dir::State": root / "state",
            "Dir::State::status": root / "status",
            "Dir::Cache": root / "cache",
            "Dir::Etc::sourcelist": root / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": architecture,
            # As root apt would switch to a user without write access here.
            "APT::Sandbox::User": "root",
        }
        lines = [f'{name} "{value}";' for name, value in settings.items()]
        lines.append(f'APT::Architectures {{ "{architecture}"; "arm64"; }};')
        (root / "apt.conf").write_text("\n".join(lines) + "\n")
        self._env = {"APT_CONFIG": str(root / "apt.conf")}
        run(["apt-get", "-q", "update"], env=self._env)

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Unpack the files of packages "NAME[:ARCHITECTURE]/SUITE"."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        run(["apt-get", "-q", "download", *packages], env=self._env, cwd=folder)
        into.mkdir(parents=True, exist_ok=True)
        for package in sorted(folder.glob("*.deb")):
            run(["dpkg-deb", "-x", package, into])

    def source(self, package: str, into: Path) -> Path:
        """Unpack a package's original source; return its folder."""
        into.mkdir()
        run(["apt-get", "-q", "--download-only", "source", package], env=self._env, cwd=into)
        run(["tar", "-xf", next(into.glob("*.orig.tar.*"))], cwd=into)
        return next(path for path in into.iterdir() if path.is_dir())


def build(debian: Debian, work: Path, stage: Path) -> None:
    """Build QEMU with plugins and the counter; copy the linked libraries."""
    source = debian.source("qemu", work / "source")
    glib, tools, folder = work / "glib", work / "tools", work / "build"
    debian.unpack([f"{package}/{GUEST_SUITE}" for package in BUILD_PACKAGES], glib)
    venv.create(tools, with_pip=True)
    run([tools / "bin/pip", "install", "-q", *BUILD_TOOLS])
    libraries = next(glib.glob("usr/lib/*/pkgconfig")).parent
    env = {
        "PATH": f"{tools / 'bin'}:{os.environ['PATH']}",
        "PKG_CONFIG_SYSROOT_DIR": str(glib),
        "PKG_CONFIG_LIBDIR": f"{libraries / 'pkgconfig'}:{glib / 'usr/share/pkgconfig'}",
    }
    folder.mkdir()
    python = f"--python={tools / 'bin/python'}"
    run([source / "configure", *CONFIGURE, python], env=env, cwd=folder)
    run(["ninja", f"-j{os.cpu_count()}", "qemu-aarch64"], env=env, cwd=folder)
    run(["strip", "-o", stage / PROGRAM, folder / "qemu-aarch64"])
    headers = [source / "include/qemu", glib / "usr/include/glib-2.0"]
    headers.append(libraries / "glib-2.0/include")
    counter = ROOT / "scripts" / "qemu_count.c"
    flags = ["-O2", "-shared", "-fPIC", *(f"-I{path}" for path in headers)]
    run(["gcc", *flags, "-o", stage / COUNTER, counter])
    for name in BUILD_LIBRARIES:
        shutil.copy2(next(path for path in glib.glob(f"**/{name}")), stage / HOST / name)


def run(
    command: Iterable[str | Path], *, env: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Return a command's output; exit with its last lines if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-15:])
        raise SystemExit(f"{last}\nqemu_sysroot: {words[0]} failed, see above")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeError as error:
        sys.exit(f"qemu_sysroot: {error}")
