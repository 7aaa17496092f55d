"""A Linux board with Python, through the user's `ssh`. All files are removed from it."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmark.config import DeviceOptions
from benchmark.devices.base import Device, DiscoveredDevice, Job, Timer
from benchmark.devices.facts import CONDITIONS_SCRIPT, SCRIPT, Facts
from benchmark.devices.link import Link
from benchmark.devices.local import worker_command
from benchmark.devices.messages import MessageTimer
from benchmark.devices.remote import foreign, wheels
from benchmark.devices.remote.shell import CONNECTION_LOST, Shell, connection_lost
from benchmark.schema import Conditions, DeviceInfo
from edge.console import say, step
from edge.engines.base import Availability
from edge.errors import EngineError
from edge.process.wire import Array, Arrays, Message
from edge.storage import sha256

# Free space beyond the copied files, for files written while a model is measured.
_SPARE_BYTES = 16_000_000
_OUT_OF_MEMORY = "out of memory there? time fewer artifacts at once"


class SshDevice(Device):
    """A board: `ssh:HOST`, with HOST as `ssh` takes it."""

    kind = "ssh"
    restarts = True

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        self.address = address
        self._timeout_s, self._python = options.timeout_s, options.python
        self._shell = Shell(address, timeout_s=options.timeout_s)
        self.host = self._shell.host
        self._uploaded: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        try:
            self._foreign = self._probe()
            # At the start, so that rows describe a board that is lost later.
            self._facts = Facts.parse(self._shell.run(SCRIPT))
        except BaseException:
            self._shell.close()
            raise

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List the hosts of ~/.ssh/config, without connecting to them."""
        reason = "not asked yet: it is connected to when it is used"
        hosts = configured_hosts(Path.home() / ".ssh" / "config")
        if not hosts:
            hosts = ["HOST"]
            reason = "~/.ssh/config names no host: any that your ssh reaches with a key can be used"
        if shutil.which("ssh") is None:
            reason = "there is no ssh here: install it (Debian: openssh-client)"
        return [
            DiscoveredDevice(f"{cls.kind}:{host}", "a Linux board with Python", (), reason)
            for host in hosts
        ]

    def engine(self, format_name: str, runtimes: Sequence[str]) -> str:
        return foreign.choose_engine(runtimes)

    def availability(self, engine: str) -> Availability:
        return wheels.availability(engine, self._runtime)

    def describe(self) -> DeviceInfo:
        versions = {**self._foreign.versions, **self._versions}
        # A Python for another processor than the machine has runs under an emulator there.
        foreign = self._facts.machine not in (None, self._foreign.machine)
        return self._facts.describe(
            driver=self.kind,
            address=self.address,
            versions=versions,
            kind="emulated" if foreign else None,
        )

    def conditions(self) -> Conditions:
        return Facts.parse(self._shell.run(CONDITIONS_SCRIPT)).conditions()

    def affinity(self, threads: int) -> tuple[int, ...] | None:
        """Return the fastest cores, if cores differ and those are enough for the threads."""
        return self._facts.fast_cores(threads)

    def open(self, job: Job) -> Timer:
        path = [self.upload_code(), *self._upload_wheels(self._runtime(job.engine))]
        if job.text_inputs is not None:
            try:
                path += self._upload_wheels(
                    wheels.tokenizer_runtime(self._foreign, where=self.host)
                )
            except EngineError as error:
                say(f"tokenization is not timed: {error}")
                job = dataclasses.replace(job, text_inputs=None)
        variables = foreign.worker_variables(job.threads, path, self._shell.folder)
        command = worker_command(self._python, self.affinity(job.threads))
        words = [*(f"{name}={value}" for name, value in variables.items()), *command]
        # Not `exec`: the remaining shell reports how the worker ended, which ssh alone does not.
        return _SshTimer(job, self, self._shell.command(f"env {shlex.join(words)}; exit $?"))

    def close(self) -> None:
        self._shell.close()

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    def upload_code(self) -> str:
        """Copy the worker's modules to the host; return the archive's path there."""
        if "code" not in self._uploaded:
            self._uploaded["code"] = self._shell.put(foreign.code_archive(), "code.zip")
        return self._uploaded["code"]

    def upload(self, path: Path) -> str:
        """Copy a file to the host once; return its path there."""
        digest = sha256(path)
        if digest not in self._uploaded:
            self._shell.require_space(path.stat().st_size + _SPARE_BYTES)
            # With its own name: some runtimes check the suffix.
            self._uploaded[digest] = self._shell.put(path, f"files/{digest[:16]}/{path.name}")
        return self._uploaded[digest]

    def _upload_wheels(self, runtime: wheels.Runtime) -> Iterator[str]:
        missing = [wheel for wheel in runtime.wheels if wheel.name not in self._uploaded]
        if missing:
            largest = max(wheel.stat().st_size for wheel in missing)
            unpacked_bytes = sum(wheels.unpacked_bytes(wheel) for wheel in missing)
            self._shell.require_space(unpacked_bytes + largest + _SPARE_BYTES)
        for wheel in missing:
            with step(f"carrying {wheel.name} to {self.host}"):
                folder = f"lib/{wheel.stem}"
                archive = self._shell.put(wheel, wheel.name)
                self._shell.check([self._python, "-m", "zipfile", "-e", archive, folder])
                self._shell.check(["rm", archive])
                self._uploaded[wheel.name] = f"{self._shell.folder}/{folder}"
        yield from (self._uploaded[wheel.name] for wheel in runtime.wheels)

    def _runtime(self, engine: str) -> wheels.Runtime:
        runtime = wheels.runtime(engine, self._foreign, where=self.host)
        self._versions |= runtime.versions
        return runtime

    def _probe(self) -> foreign.Foreign:
        # This is not a login shell: a Python that only its PATH has must be given as a path.
        python = shlex.quote(self._python)
        output = self._shell.run(
            f"command -v {python} >/dev/null || echo {foreign.NO_PYTHON}\n"
            f"exec {python} - <<'EOF'\n{foreign.PROBE}\nEOF\n"
        )
        return foreign.read_probe(output, where=self.host, python=self._python)


class _SshTimer(MessageTimer):
    def __init__(self, job: Job, device: SshDevice, argv: Sequence[str]) -> None:
        super().__init__(job)
        self._device = device
        self._link = Link(
            argv,
            label=job.label,
            env=os.environ,
            cwd=Path("/"),
            exits={
                CONNECTION_LOST: connection_lost(device.host),
                137: f"the worker was ended by SIGKILL on {device.host} ({_OUT_OF_MEMORY})",
                132: f"{device.host} lacks an instruction that the runtime uses: install one made "
                "for it for its Python there",
                139: f"the runtime crashed on {device.host} (SIGSEGV)",
            },
        )

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        return self._link.request(request, arrays, timeout_s=self._device.timeout_s)

    def place(self, path: Path) -> str:
        return self._device.upload(path)

    def close(self) -> None:
        self._link.close()


def configured_hosts(config: Path) -> list[str]:
    """Return the hosts of an ssh configuration and its included files, without patterns."""
    hosts: dict[str, None] = {}
    for words in _directives(config, depth=0):
        if words[0].lower() == "host":
            hosts |= {name: None for name in words[1:] if not set(name) & set("*?!")}
    return list(hosts)


def _directives(path: Path, depth: int) -> Iterator[list[str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            words = shlex.split(line.replace("=", " ", 1), comments=True)
        except ValueError:
            continue
        if not words:
            continue
        # As deep as ssh itself goes.
        if words[0].lower() == "include" and depth < 16:
            for pattern in words[1:]:
                include = os.path.expanduser(pattern)  # noqa: PTH111
                root = Path("/") if include.startswith("/") else path.parent
                for file in sorted(root.glob(include.lstrip("/"))):
                    yield from _directives(file, depth + 1)
        else:
            yield words
