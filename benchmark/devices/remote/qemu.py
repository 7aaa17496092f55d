"""The worker on an emulated Arm processor, under QEMU's user mode.

Outputs are those of the emulated processor's instructions, and instructions are counted; latencies
of a real processor cannot be derived. `scripts/qemu_sysroot.py` makes the sysroot.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.config import Block, DeviceOptions, Protocol
from benchmark.devices.base import Device, DiscoveredDevice, Job, StageTimes, Timer, Turn, Warmed
from benchmark.devices.link import Link
from benchmark.devices.messages import MessageTimer
from benchmark.devices.remote import foreign, wheels
from benchmark.measure import environment
from benchmark.schema import Conditions, DeviceInfo, Memory, Operator
from edge.engines.base import Availability
from edge.errors import ConfigError, MeasurementError, unknown_name
from edge.process.wire import Array, Arrays, Message
from edge.storage import cache_folder

# Content of a sysroot: the emulator and its libraries, the counter, Arm's files, and a manifest.
PROGRAM, HOST, COUNTER = "bin/qemu-aarch64", "host", "qemu_count.so"
GUEST, INFO = "root", "sysroot.json"
_PYTHON = "usr/bin/python3.11"
_TITLE = "an emulated Arm processor: right answers and instruction counts, no latencies"
# Some of QEMU's processors: an old small core, its successor with int8 dot products, a large one.
_USUAL = ("cortex-a53", "cortex-a55", "cortex-a76")
_PROBE_S = 60.0
_ONE_RUN = Block(runs=1, min_s=0, max_s=1)
# Linux's names of an Arm processor's features, by bit of the auxiliary vector's words 16 and 26.
_FEATURES = {16: {1: "asimd", 10: "asimdhp", 20: "asimddp", 22: "sve"}}
_FEATURES[26] = {1: "sve2", 13: "i8mm", 14: "bf16", 23: "sme"}
_WORDS = "@@words "
_WORDS_PROBE = (
    "import ctypes; f = ctypes.CDLL(None).getauxval; f.restype = ctypes.c_ulong; "
    f"print({_WORDS!r} + ' '.join(str(f(ctypes.c_ulong(n))) for n in {tuple(_FEATURES)}))"
)


def default_sysroot() -> Path:
    """Return the folder in which the script makes the sysroot and the device looks for it."""
    return cache_folder() / "qemu-aarch64"


class QemuDevice(Device):
    """`qemu:CPU`, a processor that QEMU knows."""

    kind = "qemu"

    def __init__(self, address: str | None, options: DeviceOptions) -> None:
        self._root = options.sysroot or default_sysroot()
        self._timeout_s = options.timeout_s
        if not (self._root / INFO).is_file():
            raise ConfigError(f"{_missing(self._root)}, or name another folder with --sysroot")
        self._info = json.loads((self._root / INFO).read_text(encoding="utf-8"))
        if address is None:
            raise ConfigError(f"name a processor, such as --device qemu:{_USUAL[-1]}")
        known = [line.strip() for line in self._run(["-cpu", "help"]).splitlines()[1:]]
        if address not in known:
            raise unknown_name("processor", address, [name for name in known if name])
        self.address = address
        output = self._run(self._python("-c", f"{foreign.PROBE}\n{_WORDS_PROBE}"))
        self._foreign = foreign.read_probe(output, where=f"qemu:{address}", python=_PYTHON)
        self._features = _features(output)
        self._versions: dict[str, str] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="edge-qemu-")
        self._opened = 0
        (self._folder / "code.zip").write_bytes(foreign.code_archive())

    @classmethod
    def discover(cls, options: DeviceOptions) -> list[DiscoveredDevice]:
        """List the usual processors of boards and phones, if there is a sysroot."""
        root = options.sysroot or default_sysroot()
        if not (root / INFO).is_file():
            return [DiscoveredDevice(f"{cls.kind}:{_USUAL[-1]}", _TITLE, (), _missing(root))]
        return [
            DiscoveredDevice(f"{cls.kind}:{name}", _TITLE, ("onnx", "tflite")) for name in _USUAL
        ]

    def engine(self, format_name: str, runtimes: Sequence[str]) -> str:
        return foreign.choose_engine(runtimes)

    def availability(self, engine: str) -> Availability:
        return wheels.availability(engine, self._runtime)

    def describe(self) -> DeviceInfo:
        return DeviceInfo(
            driver=self.kind,
            address=self.address,
            kind="emulated",
            model=f"{self.address}, emulated by QEMU {self._info['qemu']}",
            soc=None,
            abi=self._foreign.machine,
            cores=None,
            cpu_features=self._features,
            os=f"Linux user mode, glibc 2.{self._foreign.glibc}",
            ram_mb=None,
            versions={**self._foreign.versions, **self._versions, "qemu": self._info["qemu"]},
        )

    def conditions(self) -> Conditions:
        # An emulated processor has neither heat nor a clock.
        return Conditions(at_utc=environment.utc_now())

    def open(self, job: Job) -> Timer:
        runtime = self._runtime(job.engine)
        path = [str(self._folder / "code.zip"), *map(str, wheels.unpack_wheels(runtime))]
        variables = foreign.worker_variables(job.threads, path, str(self._folder))
        self._opened += 1
        # Counts of several threads vary: waiting threads spin.
        counting = self._info["counting"] and job.threads == 1
        marks = self._folder / f"marks-{self._opened}" if counting else None
        plugin = [] if marks is None else ["-plugin", f"{self._root / COUNTER},marks={marks}"]
        module = "benchmark.devices.remote.counting"
        argv = [str(self._root / PROGRAM), *plugin, *self._python("-m", module)]
        # Stage times under an emulator say nothing.
        return _QemuTimer(
            dataclasses.replace(job, text_inputs=None),
            Link(argv, label=job.label, env={**variables, **self._environment}, cwd=self._folder),
            marks,
            self._timeout_s,
        )

    def close(self) -> None:
        self._temporary.cleanup()

    @property
    def _folder(self) -> Path:
        return Path(self._temporary.name)

    @property
    def _environment(self) -> dict[str, str]:
        """Environment without the user's variables, so that counts do not depend on them."""
        return {
            "LD_LIBRARY_PATH": str(self._root / HOST),
            "PYTHONHASHSEED": "0",
            "PYTHONNOUSERSITE": "1",
        }

    def _python(self, *arguments: str) -> list[str]:
        """Return the emulator's arguments that run Arm's Python."""
        guest = self._root / GUEST
        # The same random numbers each time; libraries of this machine are for the emulator alone.
        options = ["-L", str(guest), "-cpu", str(self.address), "-seed", "1"]
        return [*options, "-U", "LD_LIBRARY_PATH", str(guest / _PYTHON), *arguments]

    def _run(self, arguments: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                [str(self._root / PROGRAM), *arguments],
                capture_output=True,
                text=True,
                env={**self._environment, "PATH": os.defpath},
                timeout=_PROBE_S,
                check=False,
            )
            reason = done.stderr
        except (OSError, subprocess.SubprocessError) as error:
            done, reason = None, str(error)
        # The exit code says nothing: QEMU also fails after listing its processors.
        if done is None or not done.stdout:
            raise MeasurementError(
                f"QEMU in {self._root} does not work ({' '.join(reason.split())[:200]}): make the "
                "folder again with scripts/qemu_sysroot.py"
            )
        return done.stdout

    def _runtime(self, engine: str) -> wheels.Runtime:
        where = f"qemu:{self.address}"
        runtime = wheels.runtime(engine, self._foreign, where=where)
        self._versions |= runtime.versions
        return runtime


class _QemuTimer(MessageTimer):
    """Runs only what outputs and counts need, since durations say nothing."""

    def __init__(self, job: Job, link: Link, marks: Path | None, timeout_s: float) -> None:
        super().__init__(job)
        self._link, self._marks, self._timeout_s = link, marks, timeout_s

    def ask(
        self, request: Message, arrays: Mapping[str, Array] | None = None
    ) -> tuple[Message, Arrays]:
        return self._link.request(request, arrays, timeout_s=self._timeout_s)

    def warm(self, protocol: Protocol) -> Warmed:
        once = {"warmup_runs": 1, "warmup_s": 0.0}
        return super().warm(protocol.model_copy(update=once))

    def turn(self, block: Block) -> Turn:
        return super().turn(_ONE_RUN)

    def memory(self) -> Memory | None:
        # It would be the emulator's.
        return None

    def stages(self) -> StageTimes | None:
        return None

    def profile(self) -> tuple[Operator, ...] | None:
        return None

    def instructions(self) -> int | None:
        if self._marks is None:
            return None
        reply, _ = self.ask({"do": "instructions", "marks": str(self._marks)})
        return int(reply["instructions"])

    def close(self) -> None:
        self._link.close()


def _missing(root: Path) -> str:
    return f"there is no Arm system in {root}: run .venv/bin/python scripts/qemu_sysroot.py"


def _features(output: str) -> tuple[str, ...]:
    """Parse the processor's features from the probe's auxiliary vector."""
    line = next((line for line in output.splitlines() if line.startswith(_WORDS)), _WORDS)
    words = zip(_FEATURES, map(int, line[len(_WORDS) :].split()), strict=False)
    return tuple(
        name for key, word in words for bit, name in _FEATURES[key].items() if word >> bit & 1
    )
