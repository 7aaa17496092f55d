"""Properties and state of a Linux machine, printed by a POSIX shell script that runs there.

`SCRIPT` prints sections; `Facts.parse` parses them here. It needs `sh`, `cat`, `echo` and `uname`,
so it runs on phones and boards over any connection. A missing file gives None, never an error.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmark.measure.environment import utc_now
from benchmark.schema import Conditions, DeviceInfo
from edge.process.processor import FEATURES

_MARK = "@@ "
# The state of the moment; what the machine is follows in SCRIPT.
CONDITIONS_SCRIPT = """
export LC_ALL=C
show() { echo; echo "@@ $1"; cat "$2" 2>/dev/null; }
show loadavg /proc/loadavg
echo; echo "@@ stat"; read -r line 2>/dev/null </proc/stat && echo "$line"
echo; echo "@@ ticks"; getconf CLK_TCK 2>/dev/null
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  for f in cpuinfo_max_freq scaling_cur_freq scaling_governor; do
    [ -r "$c/cpufreq/$f" ] && show "${c##*/} $f" "$c/cpufreq/$f"
  done
done
for z in /sys/class/thermal/thermal_zone[0-9]*; do
  [ -r "$z/temp" ] && show "${z##*/} temp" "$z/temp"
done
:
"""
SCRIPT = (
    CONDITIONS_SCRIPT
    + """
show cpuinfo /proc/cpuinfo
show meminfo /proc/meminfo
show release /etc/os-release
show board /sys/firmware/devicetree/base/model
show soc /sys/devices/soc0/soc_id
show machine /sys/devices/soc0/machine
show status /proc/self/status
echo; echo "@@ uname"; uname -m; uname -r; uname -s
:
"""
)
# Arm's own cores by "CPU part" of /proc/cpuinfo, where the implementer is Arm (0x41).
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}
_ARM = "0x41"
# Columns of /proc/stat's first line: user nice system idle iowait irq softirq steal; a guest's
# time, which follows, is in its host's user time already.
_STAT_COLUMNS, _IDLE = 8, (3, 4)
_USUAL_TICKS = 100


@dataclass(frozen=True)
class Facts:
    """The sections that the script printed, by name."""

    sections: Mapping[str, str]

    @classmethod
    def parse(cls, output: str) -> Facts:
        """Parse the output of `SCRIPT` or `CONDITIONS_SCRIPT`; text before it is skipped."""
        sections: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in output.replace("\0", "").splitlines():
            if line.startswith(_MARK):
                lines = sections.setdefault(line[len(_MARK) :].strip(), [])
            else:
                lines.append(line)
        return cls({name: "\n".join(lines).strip() for name, lines in sections.items()})

    def describe(
        self,
        *,
        driver: str,
        address: str | None,
        versions: Mapping[str, str],
        kind: Literal["real", "emulated", "simulated"] | None = None,
    ) -> DeviceInfo:
        """Describe the machine. kind: None to detect a processor that QEMU emulates."""
        memory = self._pairs("meminfo").get("memtotal", "").split()
        return DeviceInfo(
            driver=driver,
            address=address,
            kind=kind or ("emulated" if self._emulated() else "real"),
            model=self._model(),
            soc=self._text("soc") or self._pairs("cpuinfo").get("hardware"),
            abi=self.machine,
            cores=self.cores,
            cpu_features=self._features(),
            os=self._system(),
            ram_mb=int(memory[0]) * 1024 // 1_000_000 if memory and memory[0].isdigit() else None,
            versions=dict(versions),
        )

    def conditions(self) -> Conditions:
        """Return the machine's state at the time of the script."""
        load = _numbers(self._text("loadavg").split()[:3])
        current = [value / 1000 for value in self._frequencies("scaling_cur_freq").values()]
        zones = (text for name, text in self.sections.items() if name.startswith("thermal_zone"))
        degrees = [value / 1000 for value in _numbers(zones)]
        governors = (text for name, text in self.sections.items() if name.endswith("_governor"))
        return Conditions(
            at_utc=utc_now(),
            load_average=(load[0], load[1], load[2]) if len(load) == 3 else None,
            governor=next(iter(governors), None),
            frequency_mhz=(min(current), max(current)) if current else None,
            temperature_c=max(degrees, default=None),
            busy_s=self._busy_s(),
        )

    @property
    def machine(self) -> str | None:
        """Output of `uname -m`."""
        return next(iter(self._text("uname").splitlines()), None)

    @property
    def cores(self) -> int | None:
        """Number of logical cores that a process there may use."""
        return len(self._allowed()) or None

    def fast_cores(self, threads: int) -> tuple[int, ...] | None:
        """Return the fastest cores for so many threads, by `cpuinfo_max_freq`.

        Whole clusters, the fastest first, until there is a core for each thread. None if all
        cores are equally fast or all are needed.
        """
        allowed = self._allowed()
        speeds = self._frequencies("cpuinfo_max_freq")
        known = {core: speeds[core] for core in sorted(allowed) if core in speeds}
        if len(known) < len(allowed):
            return None
        chosen: list[int] = []
        for speed in sorted(set(known.values()), reverse=True):
            chosen += [core for core, maximum in known.items() if maximum == speed]
            if len(chosen) >= threads:
                break
        return tuple(sorted(chosen)) if threads <= len(chosen) < len(known) else None

    def _model(self) -> str | None:
        board = self._text("board") or self._text("machine")
        cpu = self._pairs("cpuinfo")
        core = cpu.get("model name") or self._arm_cores()
        if board and core:
            return f"{board} ({core})"
        return board or core or cpu.get("hardware") or None

    def _arm_cores(self) -> str:
        """Return "4 x Cortex-A76 + 4 x Cortex-A55", the last listed core first; "" without Arm."""
        counts: dict[str, int] = {}
        implementer = ""
        for key, value in _key_values(self._text("cpuinfo")):
            if key == "cpu implementer":
                implementer = value
            elif key == "cpu part" and implementer == _ARM and value in _ARM_CORES:
                counts[_ARM_CORES[value]] = counts.get(_ARM_CORES[value], 0) + 1
        return " + ".join(f"{count} x {name}" for name, count in reversed(counts.items()))

    def _features(self) -> tuple[str, ...]:
        pairs = self._pairs("cpuinfo")
        flags = (pairs.get("flags") or pairs.get("features") or "").split()
        return tuple(feature for feature in FEATURES if feature in flags)

    def _emulated(self) -> bool:
        pairs = self._pairs("cpuinfo")
        names = f"{pairs.get('model name', '')} {pairs.get('vendor_id', '')}"
        return "QEMU" in names or "TCG" in names

    def _system(self) -> str | None:
        lines = self._text("uname").splitlines()
        if len(lines) < 3:
            return None
        named = dict(
            line.split("=", 1) for line in self._text("release").splitlines() if "=" in line
        )
        title = " ".join(shlex.split(named.get("PRETTY_NAME", ""))) or lines[2]
        return f"{title}, kernel {lines[1]}"

    def _busy_s(self) -> float | None:
        first = next(iter(self._text("stat").splitlines()), "").split()
        counts = _numbers(first[1 : 1 + _STAT_COLUMNS])
        if first[:1] != ["cpu"] or len(counts) < _IDLE[0] + 1:
            return None
        busy = sum(count for column, count in enumerate(counts) if column not in _IDLE)
        ticks = _numbers([self._text("ticks")])
        return busy / (ticks[0] if ticks else _USUAL_TICKS)

    def _allowed(self) -> set[int]:
        """Parse the processor numbers, such as "0-3,6", that a process may use."""
        text = self._pairs("status").get("cpus_allowed_list", "")
        cores: set[int] = set()
        for part in text.split(","):
            low, _, high = part.strip().partition("-")
            if low.isdigit():
                cores |= set(range(int(low), int(high or low) + 1))
        return cores

    def _frequencies(self, name: str) -> dict[int, float]:
        """Return kilohertz by core."""
        frequencies = {}
        for section, text in self.sections.items():
            core, _, field = section.partition(" ")
            values = _numbers([text])
            if field == name and values:
                frequencies[int(core[len("cpu") :])] = values[0]
        return frequencies

    def _pairs(self, section: str) -> dict[str, str]:
        """Return the first value of each key of "key : value" lines, keys in lower case."""
        pairs: dict[str, str] = {}
        for key, value in _key_values(self._text(section)):
            pairs.setdefault(key, value)
        return pairs

    def _text(self, section: str) -> str:
        return self.sections.get(section, "")


def _key_values(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip().lower(), value.strip()


def _numbers(texts: Iterable[str]) -> list[float]:
    """Return the texts that are numbers, as numbers."""
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except ValueError:
            continue
    return numbers
