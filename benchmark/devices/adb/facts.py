"""Properties and state of an Android device: properties, battery, temperature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.devices.facts import CONDITIONS_SCRIPT, SCRIPT, Facts
from benchmark.schema import Conditions, DeviceInfo

_PROPERTIES = (
    *("ro.product.manufacturer", "ro.product.model", "ro.soc.manufacturer", "ro.soc.model"),
    *("ro.board.platform", "ro.hardware", "ro.product.cpu.abi", "ro.product.cpu.abilist"),
    *("ro.build.version.release", "ro.build.version.sdk", "ro.boot.qemu", "ro.kernel.qemu"),
)
# `uname -m` -> ABI, for devices without the property: a Linux board may run adbd too.
_ABIS = {"aarch64": "arm64-v8a", "armv7l": "armeabi-v7a", "armv8l": "armeabi-v7a", "i686": "x86"}
_EMULATORS = ("goldfish", "ranchu")
# Android's PowerManager.THERMAL_STATUS_*.
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
# Type CPU of android.os.Temperature, status CHARGING of android.os.BatteryManager.
_PROCESSOR, _CHARGING = "0", "2"
# Plausible degrees of a sensor.
_PLAUSIBLE_C = (0.0, 150.0)


def _query(**commands: str) -> str:
    """Return a script of sections for `Facts`; a command that fails prints nothing."""
    return "\n".join(
        f'echo; echo "@@ {name}"; ({command}) 2>/dev/null' for name, command in commands.items()
    )


DESCRIBE_SCRIPT = SCRIPT + _query(
    properties="; ".join(f'echo "{name}=$(getprop {name})"' for name in _PROPERTIES),
    taskset="command -v taskset",
)
STATE_SCRIPT = CONDITIONS_SCRIPT + _query(
    battery="dumpsys battery", thermal="dumpsys thermalservice"
)


@dataclass(frozen=True)
class AndroidFacts:
    """Properties of an Android device, from the output of `DESCRIBE_SCRIPT`."""

    facts: Facts

    @classmethod
    def parse(cls, output: str) -> AndroidFacts:
        return cls(Facts.parse(output))

    def _property(self, *names: str) -> str | None:
        """Return the first of these properties that the device has."""
        lines = self.facts.sections.get("properties", "").splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        property_value = next(
            (value for name in names if (value := values.get(name, "").strip())), None
        )
        # The values are shown on a terminal and in a report.
        return None if property_value is None else "".join(filter(str.isprintable, property_value))

    @property
    def abis(self) -> tuple[str, ...]:
        """Supported ABIs, the preferred one first."""
        listed = self._property("ro.product.cpu.abilist", "ro.product.cpu.abi")
        if listed is not None:
            return tuple(listed.split(","))
        machine = self.facts.machine or "unknown"
        return (_ABIS.get(machine, machine),)

    @property
    def title(self) -> str | None:
        """Manufacturer and model."""
        maker, model = self._property("ro.product.manufacturer"), self._property("ro.product.model")
        return " ".join(word for word in (maker, model) if word) or None

    def big_cores(self, threads: int) -> tuple[int, ...] | None:
        """Return the fastest cores for so many threads; None for all, or without taskset."""
        has_taskset = bool(self.facts.sections.get("taskset"))
        return self.facts.fast_cores(threads) if has_taskset else None

    def info(self, serial: str, versions: Mapping[str, str]) -> DeviceInfo:
        """Return the device's description for a row."""
        info = self.facts.describe(driver="adb", address=serial, versions=versions)
        changes: dict[str, object] = {"abi": self.abis[0]}
        if self._emulator():
            changes["kind"] = "emulated"
        if self.title is not None:
            changes["model"] = self.title
        soc = self._soc()
        if soc is not None:
            changes["soc"] = soc
        release, sdk = (
            self._property("ro.build.version.release"),
            self._property("ro.build.version.sdk"),
        )
        if release is not None:
            kernel = (info.os or "").rpartition(", ")[2]
            changes["os"] = ", ".join(
                part for part in (f"Android {release} (API {sdk})", kernel) if part
            )
        return info.model_copy(update=changes)

    def _emulator(self) -> bool:
        flags = (self._property("ro.boot.qemu"), self._property("ro.kernel.qemu"))
        return "1" in flags or self._property("ro.hardware") in _EMULATORS

    def _soc(self) -> str | None:
        parts = self._property("ro.soc.manufacturer"), self._property("ro.soc.model")
        named = " ".join(part for part in parts if part)
        return named or self._property("ro.board.platform", "ro.hardware")


def read_conditions(output: str) -> Conditions:
    """Parse the output of `STATE_SCRIPT`, run just now."""
    facts = Facts.parse(output)
    battery, thermal = facts.sections.get("battery", ""), facts.sections.get("thermal", "")
    values = dict(re.findall(r"^\s*([A-Za-z ]+): (\S+)$", battery, re.MULTILINE))
    conditions = facts.conditions()
    return conditions.model_copy(
        update={
            "temperature_c": _temperature(facts, thermal),
            "thermal_status": _thermal_status(thermal),
            "battery_percent": _percent(values),
            "charging": values["status"] == _CHARGING if "status" in values else None,
        }
    )


def _temperature(facts: Facts, thermal: str) -> float | None:
    """Return the temperature of the hottest CPU sensor, else of the hottest thermal zone."""
    # The current values of the service, if any, follow the cached ones.
    _, _, now = thermal.rpartition("Current temperatures")
    sensors = re.findall(r"mValue=([-0-9.]+), mType=(-?\d+)", now)
    values = [float(value) for value, kind in sensors if kind == _PROCESSOR]
    zones = [text for name, text in facts.sections.items() if name.startswith("thermal_zone")]
    values = values or [int(text) / 1000 for text in zones if text.lstrip("-").isdigit()]
    low, high = _PLAUSIBLE_C
    return max((value for value in values if low < value < high), default=None)


def _thermal_status(text: str) -> str | None:
    match = re.search(r"Thermal Status: (\d+)", text)
    if match is None:
        return None
    number = int(match.group(1))
    return _THERMAL[number] if number < len(_THERMAL) else str(number)


def _percent(battery: Mapping[str, str]) -> float | None:
    level, scale = battery.get("level", ""), battery.get("scale", "100")
    if not level.isdigit() or not scale.isdigit() or int(scale) == 0:
        return None
    return 100 * int(level) / int(scale)
