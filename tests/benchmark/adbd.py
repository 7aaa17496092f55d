"""The real adb and the real adbd on one Linux machine, in namespaces of their own.

Debian ships both: `python tests/benchmark/adbd.py [FOLDER]` unpacks `adb` of bookworm and `adbd` of
trixie, with the libraries that they need, into FOLDER (build/adbd). Nothing is installed, no daemon
is started, and nothing outside FOLDER is written.

`Lab` runs them: adbd asks nobody for permission and listens on every interface, so it lives in a
network namespace whose only interface is its own loopback, and in a mount namespace that has
/data/local/tmp, /sdcard and, where a test wants them, made-up sensors. The server, the daemon, the
protocol, push, pull, shell and exit codes are real. What belongs to Android alone is a script of a
few lines on the device's PATH: getprop, dumpsys, pm, am, pidof.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("EDGE_ADBD", ROOT / "build" / "adbd"))
_MIRROR = "http://deb.debian.org/debian"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES = {
    "bookworm": (
        *("adb", "android-libbase", "android-libcutils", "android-libboringssl", "android-liblog"),
        *("libusb-1.0-0", "libbsd0", "libmd0"),
    ),
    "trixie": (
        *("adbd", "android-libbase", "android-libcutils", "android-libboringssl", "android-liblog"),
        *("libbrotli1", "libc6", "libgcc-s1", "libstdc++6", "liblz4-1", "libprotobuf32t64"),
        *("libsystemd0", "libzstd1", "zlib1g", "libcap2", "libxxhash0"),
    ),
}
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_TOOLS = "usr/lib/android-sdk/platform-tools"
_SERVER_PORT = 5641
_START_S = 30.0
PROPERTIES = {
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "Slate 7",
    "ro.soc.manufacturer": "Acme",
    "ro.soc.model": "AC9000",
    "ro.product.cpu.abi": "x86_64",
    "ro.product.cpu.abilist": "x86_64,x86",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}


def fetch(folder: Path) -> None:
    """Unpack the packages of both suites, `folder`/SUITE each."""
    for suite, packages in _PACKAGES.items():
        state, target = folder / f".apt-{suite}", folder / suite
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        source = f"deb [arch=amd64 signed-by={_KEYS}] {_MIRROR} {suite} main\n"
        (state / "sources.list").write_text(source)
        (state / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{state}/sources.list";\nDir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{state}/lists";\nDir::State::status "{state}/status";\n'
            f'Dir::Cache "{state}/cache";\nAPT::Sandbox::User "{os.environ.get("USER", "root")}";\n'
            'APT::Architecture "amd64";\n'
        )
        env = {**os.environ, "APT_CONFIG": str(state / "apt.conf")}
        subprocess.run(["apt-get", "-q", "update"], env=env, check=True)
        wanted = ["apt-get", "-q", "download", *packages]
        subprocess.run(wanted, env=env, check=True, cwd=state / "debs")
        for package in sorted((state / "debs").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, target], check=True)
        shutil.rmtree(state)


def obstacle() -> str | None:
    """Why a lab cannot be had here; None when it can."""
    if not (FOLDER / "trixie" / _TOOLS / "adbd").is_file():
        return f"no adbd in {FOLDER}: python tests/benchmark/adbd.py fetches it (EDGE_ADBD)"
    for name in ("unshare", "nsenter", "ip", "mount", "chroot"):
        if shutil.which(name, path=_PATH) is None:
            return f"no {name} here"
    tried = subprocess.run(["unshare", "-rnm", "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Lab:
    """Namespaces with an adb server and any number of devices. Close it, or use it in `with`.

    bin: a folder to put on PATH, with `adb`.
    """

    def __init__(self, work: Path) -> None:
        self._work, self.bin = work, work / "bin"
        for name in ("bin", "home", "tmp", "roots"):
            (work / name).mkdir(parents=True)
        self._devices: list[LabDevice] = []
        self._holder = subprocess.Popen(
            ["unshare", "-rnm", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": _PATH},
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise RuntimeError("the namespaces did not come up")
        # Its own name is how adb starts its server, so it cannot be run by another loader.
        folder = FOLDER / "bookworm" / _LIBRARIES
        self._write(
            self.bin / "adb",
            f"export ANDROID_ADB_SERVER_PORT={_SERVER_PORT} HOME={work}/home TMPDIR={work}/tmp\n"
            f"export LD_LIBRARY_PATH={folder}/android:{folder}\n"
            f'exec {" ".join(self.enter())} {FOLDER / "bookworm" / _TOOLS}/adb "$@"\n',
        )

    def enter(self, *, mounts: bool = False) -> list[str]:
        """The beginning of a command that runs inside."""
        spaces = ["-U", "-n", *(["-m"] if mounts else [])]
        nsenter = shutil.which("nsenter", path=_PATH) or "nsenter"
        return [nsenter, "-t", str(self._holder.pid), *spaces, "--preserve-credentials"]

    def adb(self, *arguments: str, check: bool = True) -> str:
        """What the real adb prints."""
        done = subprocess.run(
            [self.bin / "adb", *arguments], capture_output=True, text=True, timeout=_START_S
        )
        if check and done.returncode:
            raise RuntimeError(f"adb {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def device(self, **values: object) -> LabDevice:
        """One more device, attached."""
        device = LabDevice(self, self._work, len(self._devices), **values)  # type: ignore[arg-type]
        self._devices.append(device)
        self.attach(device)
        return device

    def attach(self, device: LabDevice) -> None:
        """As if its cable was put in."""
        deadline = time.monotonic() + _START_S
        while True:
            self.adb("connect", device.serial, check=False)
            state = self.adb("-s", device.serial, "get-state", check=False).strip()
            if state == "device":
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"adbd did not come up: {device.log.read_text()}")
            time.sleep(0.1)

    def detach(self, serial: str) -> None:
        """As if its cable was taken out."""
        self.adb("disconnect", serial, check=False)

    def close(self) -> None:
        """End everything in the namespaces; they go with it."""
        with contextlib.suppress(OSError):
            space = Path(f"/proc/{self._holder.pid}/ns/net").readlink()
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if (process / "ns/net").readlink() == space:
                        os.kill(int(process.name), signal.SIGKILL)
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)


class LabDevice:
    """An adbd with a file system and shims of its own.

    size_mb: of /data/local/tmp. clocks_khz: the highest clock of each core, made up, for a machine
    that shows none.
    """

    def __init__(
        self,
        lab: Lab,
        work: Path,
        number: int,
        *,
        size_mb: int = 400,
        clocks_khz: Sequence[int] = (),
        properties: Mapping[str, str] = PROPERTIES,
    ) -> None:
        self._lab, port = lab, 5701 + number
        self.serial = f"127.0.0.1:{port}"
        self.home = work / f"device-{number}"
        self.log = self.home / "adbd.log"
        self.shims = self.home / "bin"
        self.shims.mkdir(parents=True)
        self._root = work / "roots" / str(number)
        self._root.mkdir()
        self._write_shims(properties)
        self._sensors = self._make_sensors(clocks_khz) if clocks_khz else None
        self._mount(size_mb)
        suite = FOLDER / "trixie"
        libraries = f"{suite / _LIBRARIES}/android:{suite / _LIBRARIES}"
        env = {
            "PATH": f"{self.shims}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "ADBD_PORT": str(port),
            "TMPDIR": "/data/local/tmp",
            "HOME": str(self.home),
        }
        with self.log.open("w") as log:
            self._adbd = subprocess.Popen(
                [
                    *lab.enter(mounts=True),
                    *("chroot", self._root, f"{suite / _LIBRARIES}/ld-linux-x86-64.so.2"),
                    *("--library-path", libraries, f"{suite / _TOOLS}/adbd"),
                ],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def shell(self, script: str) -> str:
        """What a script prints on the device."""
        return self._lab.adb("-s", self.serial, "shell", script, check=False)

    def shim(self, name: str, text: str) -> None:
        """Put a program in the place of one that only Android has."""
        Lab._write(self.shims / name, text)

    def stop(self) -> None:
        """The device freezes: its connections stay open, and nothing answers."""
        self._adbd.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """The device is gone."""
        self._adbd.kill()
        self._adbd.wait()

    def _write_shims(self, properties: Mapping[str, str]) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self.home / "properties").write_text(lines)
        self.shim("getprop", f'grep "^$1=" {self.home}/properties | cut -d= -f2-\n')
        self.shim("dumpsys", f'cat "{self.home}/dumpsys-$1" 2>/dev/null\n')
        self.shim("pm", "exit 1\n")
        self.shim("am", 'echo "Error: this device has no apps"\n')
        (self.home / "dumpsys-battery").write_text(
            "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n"
            "  Max charging current: 500000\n  status: 2\n  health: 2\n  present: true\n"
            "  level: 85\n  scale: 100\n  voltage: 4200\n  temperature: 301\n"
        )
        (self.home / "dumpsys-thermalservice").write_text(
            "IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 1\n"
            "Thermal Status: 1\nCached temperatures:\n"
            "\tTemperature{mValue=90.0, mType=0, mName=CPU0, mStatus=0}\n"
            "HAL Ready: true\nHAL connection:\n\tThermalHAL AIDL 1 connected: yes\n"
            "Current temperatures from HAL:\n"
            "\tTemperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}\n"
            "\tTemperature{mValue=43.25, mType=0, mName=CPU1, mStatus=0}\n"
            "\tTemperature{mValue=55.0, mType=3, mName=skin, mStatus=1}\n"
            "Current cooling devices from HAL:\n"
        )

    def _make_sensors(self, clocks_khz: Sequence[int]) -> Path:
        """A /sys with the clocks of a phone; what else libraries read of processors is real."""
        system = Path("/sys/devices/system/cpu")
        made = self.home / "cpu"
        made.mkdir()
        for name in ("possible", "present", "online", "kernel_max"):
            shutil.copyfile(system / name, made / name)
        for core, clock in enumerate(clocks_khz):
            folder = made / f"cpu{core}"
            for part in ("topology", "cache"):
                source = system / f"cpu{core}" / part
                for file in source.rglob("*") if source.is_dir() else ():
                    target = folder / part / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(OSError):
                        if file.is_file():
                            target.write_bytes(file.read_bytes())
            (folder / "cpufreq").mkdir(parents=True)
            for name, text in (
                ("cpuinfo_max_freq", clock),
                ("scaling_cur_freq", clock // 2),
                ("scaling_governor", "schedutil"),
            ):
                (folder / "cpufreq" / name).write_text(f"{text}\n")
        return made

    def _mount(self, size_mb: int) -> None:
        """This machine's files, with Android's folders beside them."""
        lines = ["set -e"]
        for entry in sorted(Path("/").iterdir()):
            target = self._root / entry.name
            if entry.is_symlink():
                target.symlink_to(entry.readlink())
            elif entry.is_dir() and entry.name not in ("data", "sdcard", "lost+found"):
                target.mkdir()
                lines.append(f"mount --rbind {entry} {target}")
        for name in ("data", "sdcard"):
            (self._root / name).mkdir()
            lines.append(f"mount -t tmpfs -o size={size_mb}m,mode=755 none {self._root / name}")
        lines.append(f"mkdir -p {self._root}/data/local/tmp")
        if self._sensors is not None:
            lines.append(f"mount --bind {self._sensors} {self._root}/sys/devices/system/cpu")
        command = [*self._lab.enter(mounts=True), "sh", "-c", "\n".join(lines)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PATH": _PATH}
        )
        if done.returncode:
            raise RuntimeError(f"mounting failed: {done.stderr}")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    reason = obstacle()
    print(reason or f"ready in {FOLDER}")
