"""A Linux machine described from a script's output: boards, phones, virtual machines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from benchmark.devices.facts import CONDITIONS_SCRIPT, SCRIPT, Facts
from benchmark.measure import environment

_CORE = "processor\t: {}\nFeatures\t: fp asimd aes asimdhp cpuid asimddp\nCPU implementer\t: {}\n"
_CORE += "CPU part\t: {}\n\n"


def _cpuinfo(parts: list[str], implementer: str = "0x41") -> str:
    return "".join(_CORE.format(n, implementer, part) for n, part in enumerate(parts))


def _cores(kilohertz: list[int], current: int = 600000, governor: str = "ondemand") -> str:
    return "".join(
        f"\n@@ cpu{n} cpuinfo_max_freq\n{value}\n\n@@ cpu{n} scaling_cur_freq\n{current + n}\n"
        f"\n@@ cpu{n} scaling_governor\n{governor}\n"
        for n, value in enumerate(kilohertz)
    )


# As a Raspberry Pi 5 and an eight-core phone-like board print it.
PI = (
    "Welcome to your board!\n\n@@ loadavg\n0.52 0.48 0.40 1/180 2345\n"
    "\n@@ stat\ncpu  1000 20 300 90000 500 6 70 8 50 0\n\n@@ ticks\n100\n"
    + _cores([2400000] * 4, current=1500000)
    + "\n@@ thermal_zone0 temp\n48200\n\n@@ thermal_zone1 temp\nbroken\n"
    "\n@@ cpuinfo\n" + _cpuinfo(["0xd0b"] * 4) + "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    "\n@@ meminfo\nMemTotal:        8245432 kB\nMemFree:  7000000 kB\n"
    '\n@@ release\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
    "\n@@ board\nRaspberry Pi 5 Model B Rev 1.0\0\n\n@@ soc\n\n@@ machine\n"
    "\n@@ status\nName:\tcat\nCpus_allowed_list:\t0-3\n"
    "\n@@ uname\naarch64\n6.6.20+rpt-rpi-2712\nLinux\n"
)
BIG_LITTLE = (
    _cores([1800000] * 4 + [2400000] * 3 + [2800000])
    + "\n@@ cpuinfo\n"
    + _cpuinfo(["0xd05"] * 4 + ["0xd0d"] * 3 + ["0xd44"])
    + "Hardware\t: Some SoC\n\n@@ status\nCpus_allowed_list:\t0-7\n"
)


def test_a_board_is_described() -> None:
    found = Facts.parse(PI).describe(driver="ssh", address="pi", versions={"python": "3.11.2"})
    assert (found.driver, found.address, found.kind) == ("ssh", "pi", "real")
    assert found.model == "Raspberry Pi 5 Model B Rev 1.0 (4 x Cortex-A76)"
    assert (found.abi, found.cores, found.ram_mb) == ("aarch64", 4, 8443)
    assert found.cpu_features == ("asimd", "asimdhp", "asimddp")
    assert found.os == "Debian GNU/Linux 12 (bookworm), kernel 6.6.20+rpt-rpi-2712"
    assert found.versions == {"python": "3.11.2"}


def test_its_state_is_read() -> None:
    found = Facts.parse(PI).conditions()
    assert found.load_average == (0.52, 0.48, 0.40)
    assert found.governor == "ondemand"
    assert found.frequency_mhz == (1500.0, 1500.003)
    assert found.temperature_c == 48.2
    # Neither idle nor waiting, and a guest's 50 ticks are in its host's 1000 already.
    assert found.busy_s == pytest.approx((1000 + 20 + 300 + 6 + 70 + 8) / 100)


def test_cores_of_several_kinds_are_named_fastest_first() -> None:
    facts = Facts.parse(BIG_LITTLE)
    found = facts.describe(driver="adb", address=None, versions={})
    assert found.model == "1 x Cortex-X1 + 3 x Cortex-A77 + 4 x Cortex-A55"
    assert found.soc == "Some SoC"


@pytest.mark.parametrize(
    ("threads", "cores"),
    [(1, (7,)), (2, (4, 5, 6, 7)), (4, (4, 5, 6, 7)), (5, None), (9, None)],
)
def test_threads_get_the_fastest_clusters_that_hold_them(
    threads: int, cores: tuple[int, ...] | None
) -> None:
    assert Facts.parse(BIG_LITTLE).fast_cores(threads) == cores


def test_equal_cores_are_not_chosen_among() -> None:
    assert Facts.parse(PI).fast_cores(1) is None


def test_only_cores_that_may_be_used_are_chosen() -> None:
    limited = BIG_LITTLE.replace("Cpus_allowed_list:\t0-7", "Cpus_allowed_list:\t0-1,4")
    facts = Facts.parse(limited)
    assert facts.cores == 3
    assert facts.fast_cores(1) == (4,)
    assert facts.fast_cores(2) is None


def test_a_frequency_that_is_not_known_chooses_nothing() -> None:
    unknown = BIG_LITTLE.replace("@@ cpu3 cpuinfo_max_freq", "@@ cpu3 nothing")
    assert Facts.parse(unknown).fast_cores(1) is None


def test_an_emulated_processor_is_told_apart() -> None:
    facts = Facts.parse("@@ cpuinfo\nmodel name\t: QEMU Virtual CPU\nflags\t\t: avx2 nopl\n")
    found = facts.describe(driver="ssh", address="vm", versions={})
    assert (found.kind, found.cpu_features) == ("emulated", ("avx2",))


def test_cores_of_other_makers_are_not_given_arms_names() -> None:
    facts = Facts.parse(f"@@ cpuinfo\n{_cpuinfo(['0xd0b'], implementer='0x51')}")
    assert facts.describe(driver="ssh", address="x", versions={}).model is None


@pytest.mark.parametrize("output", ["", "no such script", "@@ stat\n\n@@ loadavg\nx\n@@ uname\n"])
def test_nothing_fails_on_a_machine_that_tells_nothing(output: str) -> None:
    facts = Facts.parse(output)
    found, state = facts.describe(driver="ssh", address="x", versions={}), facts.conditions()
    assert (found.model, found.abi, found.cores, found.ram_mb, found.os) == (None,) * 5
    assert (state.load_average, state.governor, state.frequency_mhz) == (None,) * 3
    assert (state.temperature_c, state.busy_s) == (None, None)
    assert facts.fast_cores(1) is None


@pytest.mark.skipif(sys.platform != "linux", reason="runs the script on Linux")
def test_this_machine_is_described_as_it_describes_itself() -> None:
    done = subprocess.run(["sh"], input=SCRIPT, capture_output=True, text=True, check=True)
    facts, own = Facts.parse(done.stdout), environment.describe()
    found = facts.describe(driver="local", address=None, versions=own.versions)
    assert (found.kind, found.abi, found.os) == (own.kind, platform.machine(), own.os)
    assert (found.cores, found.cpu_features) == (len(os.sched_getaffinity(0)), own.cpu_features)
    assert found.ram_mb is not None and own.ram_mb is not None
    assert abs(found.ram_mb - own.ram_mb) <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="runs the script on Linux")
def test_the_state_of_this_machine_is_read_as_it_reads_itself() -> None:
    before = environment.conditions()
    command = ["sh", "-s"]
    done = subprocess.run(
        command, input=CONDITIONS_SCRIPT, capture_output=True, text=True, check=True
    )
    found, after = Facts.parse(done.stdout).conditions(), environment.conditions()
    assert found.governor == before.governor
    assert found.load_average is not None and before.busy_s is not None
    assert found.busy_s is not None and after.busy_s is not None
    # In steps of a hundredth of a second for each of the kinds of time.
    assert before.busy_s - 0.1 <= found.busy_s <= after.busy_s + 0.1
